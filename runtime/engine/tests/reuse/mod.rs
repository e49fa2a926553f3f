//! Instances of WASI 0.3 that answer more than one request: as many as they may, at once and one after the other.

use super::*;

fn reuse(instances: usize, requests: u32, concurrency: usize) -> Reuse {
    Reuse { instances, requests, concurrency }
}

async fn tally(engine: &Arc<Engine>, reuse: Option<Reuse>, change: impl FnOnce(&mut Grants)) -> Function {
    let mut grants = Grants { reuse, ..Grants::none(Arc::new(Printed::default())) };
    change(&mut grants);
    example(engine, "tally").await.function(grants).expect("a function")
}

/// Waits until nothing goes on in any instance.
async fn rest(engine: &Engine) {
    tokio::time::timeout(PATIENCE, eventually(|| (engine.stats().instances == 0).then_some(())))
        .await
        .expect("it rests");
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Empty::new().map_err(|never| match never {}).boxed()).expect("a request")
}

/// A request that stays in its instance: the first line of its answer, and the rest.
async fn hold(function: &Function) -> (String, Body) {
    let response = tokio::time::timeout(PATIENCE, function.call(request("/hold"))).await.expect("an answer");
    let mut body = response.into_body();
    let first = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("a line").expect("bytes");
    let line = String::from_utf8_lossy(&first.into_data().expect("data")).into_owned();
    (line, body)
}

/// Two requests in the first instance of a function.
async fn hold_two(function: &Function) -> [Body; 2] {
    let (line, first) = hold(function).await;
    assert_eq!(line, "request 1 of this instance, 1 at once\n");
    loop {
        // An instance that has not had a turn yet lets others go to a new one.
        let (line, second) = hold(function).await;
        if line == "request 2 of this instance, 2 at once\n" {
            return [first, second];
        }
        assert_eq!(line, "request 1 of this instance, 1 at once\n");
    }
}

/// How a body that is held ends.
async fn broken_off(body: &mut Body) -> String {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("no clean end");
    frame.expect_err("it is broken off").to_string()
}

#[tokio::test]
async fn an_instance_remembers_until_it_has_answered_as_many_requests_as_it_may() {
    let engine = engine();
    for (allowed, numbers) in [(None, [1, 1, 1, 1]), (Some(reuse(1, 3, 1)), [1, 2, 3, 1])] {
        let function = tally(&engine, allowed, |_| {}).await;
        for number in numbers {
            let line = format!("request {number} of this instance, 1 at once\n");
            assert_eq!(ask(&function, "/").await, (StatusCode::OK, line), "{allowed:?}");
            rest(&engine).await;
            let is_kept = allowed.is_some() && number < 3;
            eventually(|| (is_kept == (function.usage().memory_bytes() > 0)).then_some(())).await;
        }
        assert_eq!(function.take_failure(), None);
    }
}

#[tokio::test]
async fn no_more_instances_wait_than_may() {
    let engine = engine();
    let function = tally(&engine, Some(reuse(1, 100, 1)), |_| {}).await;
    let (_, first) = hold(&function).await;
    let (_, second) = hold(&function).await;
    let two = function.usage().memory_bytes();
    drop((first, second));
    rest(&engine).await;
    // Whoever is left alone does not wait for another: nobody knows in what state it is.
    eventually(|| (function.usage().memory_bytes() == 0).then_some(())).await;
    let waits = |_| async { ask(&function, "/wait/50").await };
    futures_util::future::join_all((0..4).map(waits)).await;
    rest(&engine).await;
    eventually(|| (function.usage().memory_bytes() == two / 2).then_some(())).await;
}

#[tokio::test]
async fn an_instance_has_as_many_requests_at_once_as_it_may() {
    let engine = engine();
    let function = tally(&engine, Some(reuse(2, 100, 2)), |_| {}).await;
    let _held = hold_two(&function).await;
    // Those two are all that it may have.
    for _ in 0..3 {
        let (line, _body) = hold(&function).await;
        assert!(line.starts_with("request 1 of"), "{line}");
    }
}

#[tokio::test]
async fn an_instance_of_wasi_0_2_cannot_have_several_requests_at_once() {
    let engine = engine();
    let grants = Grants { reuse: Some(reuse(1, 100, 2)), ..Grants::none(Arc::new(Printed::default())) };
    let error = example(&engine, "hello").await.function(grants).err().expect("it is refused");
    assert_eq!(error, shoal_engine::StartError::OneAtATime);
}

#[tokio::test]
async fn a_trap_takes_all_requests_of_its_instance_and_none_of_another() {
    let engine = engine();
    let function = tally(&engine, Some(reuse(4, 100, 3)), |_| {}).await;
    let [mut first, mut second] = hold_two(&function).await;
    let other = tally(&engine, Some(reuse(1, 100, 1)), |_| {}).await;
    let (_, mut apart) = hold(&other).await;
    // A full instance is passed by.
    let (status, body) = ask(&other, "/trap").await;
    assert!(status == StatusCode::INTERNAL_SERVER_ERROR && body.contains("the function failed"), "{status} {body}");
    let mut ending = Box::pin(async { (broken_off(&mut first).await, broken_off(&mut second).await) });
    let told = loop {
        assert_eq!(ask(&function, "/trap").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        if let std::task::Poll::Ready(told) = futures_util::poll!(&mut ending) {
            break told;
        }
    };
    assert!(told.0.contains("the function failed") && told.1 == told.0, "{told:?}");
    assert!(futures_util::poll!(Box::pin(apart.frame())).is_pending());
    assert_eq!(ask(&other, "/").await.0, StatusCode::OK);
    assert!(function.take_failure().is_some_and(|failure| failure.contains("unreachable")));
}

#[tokio::test]
async fn who_computes_in_an_instance_does_not_hold_up_requests_that_others_can_answer() {
    let engine = engine();
    let limit = Duration::from_secs(2);
    let function = tally(&engine, Some(reuse(2, 1_000, 8)), |grants| grants.request_timeout = limit).await;
    let spinning = tokio::spawn({
        let function = function.clone();
        async move { ask(&function, "/spin").await }
    });
    while !spinning.is_finished() {
        let (status, body) = ask(&function, "/").await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    assert_eq!(spinning.await.expect("an answer").0, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_broken_off() {
    let engine = engine();
    let limit = Duration::from_millis(300);
    let function = tally(&engine, Some(reuse(1, 100, 2)), |grants| grants.request_timeout = limit).await;
    let (_, mut body) = hold(&function).await;
    assert_eq!(broken_off(&mut body).await, "the function took too long");
    eventually(|| (function.usage().memory_bytes() == 0).then_some(())).await;
    assert_eq!(ask(&function, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_end_takes_all_instances() {
    let engine = engine();
    let function = tally(&engine, Some(reuse(4, 100, 2)), |_| {}).await;
    let [mut first, _second] = hold_two(&function).await;
    let (_, third) = hold(&function).await;
    function.kill();
    assert_eq!(broken_off(&mut first).await, "the function was stopped");
    assert_eq!(ask(&function, "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    drop(third);
    eventually(|| (function.usage().memory_bytes() == 0).then_some(())).await;
}

#[tokio::test]
async fn an_instance_that_waits_goes_with_its_function() {
    let engine = engine();
    let function = tally(&engine, Some(reuse(4, 100, 2)), |_| {}).await;
    ask(&function, "/").await;
    rest(&engine).await;
    let usage = function.usage();
    assert!(usage.memory_bytes() > 0);
    drop(function);
    eventually(|| (usage.memory_bytes() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_function_of_wasi_0_3_connects_and_cannot_listen() {
    let engine = engine();
    let world = Arc::default();
    let server = Pod::of(&world, "10.64.0.2");
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = ["chorus", "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(server.clone());
    let _process = example(&engine, "chorus").await.start(&grants).expect("it starts");
    eventually(|| server.open("10.64.0.9:1000", 7)).await;
    let sockets: Arc<dyn Sockets> = Pod::of(&world, "10.64.0.3");
    let function = tally(&engine, None, |grants| grants.sockets = Some(sockets)).await;
    for (path, wanted) in [
        ("/ask/server:7", "chorus of nobody\n"),
        ("/ask/server:8", "ConnectionRefused"),
        ("/ask/192.0.2.1:7", "AccessDenied"),
        ("/ask/nobody:7", "NameUnresolvable"),
        ("/listen", "AccessDenied"),
    ] {
        let (_, body) = ask(&function, path).await;
        assert!(body.contains(wanted), "{path}: {body}");
    }
}
