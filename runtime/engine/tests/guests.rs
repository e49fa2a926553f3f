//! Real guests within their limits: the bundled examples, and a few modules in text.

mod network;
mod reuse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use shoal_engine::{
    Body, Datagram, Engine, EngineConfig, ExitReason, Function, Grants, Kind, LoadError, LogSink, Module, Outbound,
    OutboundError, Preopen, Reuse, Sockets,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use network::Pod;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Printed(Mutex<Vec<u8>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("a lock")).into_owned()
    }
}

impl LogSink for Printed {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
    }
}

fn engine() -> Arc<Engine> {
    Engine::new(&EngineConfig { function_instances: 16, cache_dir: None, threads: 2 }).expect("an engine")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../wasm-examples/{name}/{name}.wasm"))
}

async fn example(engine: &Arc<Engine>, name: &str) -> Arc<Module> {
    let path = path(name);
    engine.load(name, move || std::fs::read(&path)).await.expect("it loads")
}

async fn load(engine: &Arc<Engine>, wasm: &[u8]) -> Result<Arc<Module>, LoadError> {
    let wasm = wasm.to_vec();
    engine.load(&format!("{:x?}", &wasm), move || Ok(wasm.clone())).await
}

/// A core module, from its text.
fn core(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("valid text")
}

/// Runs an example to its end.
async fn run(name: &str, arguments: &[&str], change: impl FnOnce(&mut Grants)) -> (shoal_engine::Exit, String) {
    let engine = engine();
    let printed = Arc::new(Printed::default());
    let mut grants = Grants::none(printed.clone());
    grants.arguments = [&[name], arguments].concat().into_iter().map(str::to_string).collect();
    change(&mut grants);
    let mut process = example(&engine, name).await.start(&grants).expect("it starts");
    let exit = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends");
    (exit, printed.text())
}

async fn ask(function: &Function, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Empty::new().map_err(|never| match never {}).boxed()).expect("a request");
    let response = tokio::time::timeout(PATIENCE, function.call(request)).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_process_prints_and_ends_with_its_code() {
    let (exit, printed) = run("batch", &["100"], |_| {}).await;
    assert_eq!((exit.code, exit.reason), (0, ExitReason::Exited));
    assert_eq!(printed, "there are 25 primes below 100\n");
    let (exit, _) = run("batch", &["many"], |_| {}).await;
    assert_eq!((exit.code, exit.reason), (1, ExitReason::Exited));
}

#[tokio::test]
async fn a_core_module_keeps_its_exit_code() {
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 3))))"#;
    let engine = engine();
    let module = load(&engine, &core(text)).await.expect("it loads");
    assert_eq!(module.kind(), Kind::Process);
    let mut process = module.start(&Grants::none(Arc::new(Printed::default()))).expect("it starts");
    assert_eq!(process.wait().await.code, 3);
}

#[tokio::test]
async fn a_guest_that_eats_memory_is_ended_at_its_limit() {
    let (exit, printed) = run("unruly", &["eat"], |grants| grants.memory_limit_bytes = Some(16 << 20)).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OutOfMemory));
    assert!(printed.contains("ate 8 MiB") && !printed.contains("ate 16 MiB"), "{printed}");
}

#[tokio::test]
async fn a_trap_is_told_with_the_place_in_the_guest() {
    let (exit, printed) = run("unruly", &["trap"], |_| {}).await;
    let ExitReason::Trap(message) = exit.reason else { panic!("{exit:?}") };
    assert!(message.contains("unreachable") && message.contains("wasm backtrace"), "{message}");
    assert!(printed.contains("asked to trap"), "{printed}");
}

#[tokio::test]
async fn a_spinning_guest_neither_stops_its_neighbours_nor_outlives_its_end() {
    let engine = engine();
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = vec!["unruly".to_string(), "spin".to_string()];
    let module = example(&engine, "unruly").await;
    // More of them than the engine has threads.
    let mut spinning: Vec<_> = (0..4).map(|_| module.start(&grants).expect("it starts")).collect();
    let hello =
        example(&engine, "hello").await.function(Grants::none(Arc::new(Printed::default()))).expect("a function");
    for _ in 0..20 {
        assert_eq!(ask(&hello, "/").await.0, StatusCode::OK);
    }
    for process in &mut spinning {
        process.kill();
        assert_eq!(tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends").code, 137);
        assert!(process.usage().cpu_time() > Duration::ZERO);
    }
}

#[tokio::test]
async fn a_limited_guest_rests_for_the_share_it_may_not_use() {
    let engine = engine();
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = vec!["unruly".to_string(), "spin".to_string()];
    grants.cpu_limit_millis = Some(100);
    let module = example(&engine, "unruly").await;
    let process = module.start(&grants).expect("it starts");
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        tokio::task::yield_now().await;
    }
    // A tenth of a core; three tenths leaves room for a busy machine's clock and still fails without a limit.
    assert!(
        process.usage().cpu_time() < start.elapsed().mul_f64(0.3),
        "{:?} of {:?}",
        process.usage().cpu_time(),
        start.elapsed()
    );
}

#[tokio::test]
async fn variables_and_directories_are_those_granted() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("message"), "from a file").expect("written");
    let engine = engine();
    let printed = Arc::new(Printed::default());
    let mut grants = Grants::none(printed.clone());
    grants.environment = vec![
        ("MESSAGE_FILE".to_string(), "/nothing".to_string()),
        ("MESSAGE_FILE".to_string(), "/config/message".to_string()),
        ("PERIOD_MS".to_string(), "1".to_string()),
    ];
    grants.preopens =
        vec![Preopen { host: folder.path().to_path_buf(), guest: "/config".to_string(), read_only: true }];
    let process = example(&engine, "ticker").await.start(&grants).expect("it starts");
    tokio::time::timeout(PATIENCE, async {
        while !printed.text().contains("3 from a file") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it prints the file");
    drop(process);
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let engine = engine();
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.preopens = vec![Preopen { host: "/does/not/exist".into(), guest: "/config".to_string(), read_only: true }];
    let error = example(&engine, "batch").await.start(&grants).err().expect("it does not start").to_string();
    assert!(error.contains("/does/not/exist") && error.contains("/config"), "{error}");
}

#[tokio::test]
async fn a_function_answers_with_its_variables_and_nothing_of_the_last_request() {
    let engine = engine();
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.environment =
        vec![("POD_NAME".to_string(), "pod-1".to_string()), ("GREETING".to_string(), "Ahoy".to_string())];
    let module = example(&engine, "hello").await;
    assert_eq!(module.kind(), Kind::Function);
    let function = module.function(grants).expect("a function");
    for _ in 0..50 {
        assert_eq!(ask(&function, "/").await, (StatusCode::OK, "Ahoy from pod-1\n".to_string()));
    }
    // The last instance may still be on its way out.
    eventually(|| (function.usage().memory_bytes() == 0).then_some(())).await;
    function.kill();
    assert_eq!(ask(&function, "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_function_of_wasi_0_3_answers_while_it_is_told() {
    let engine = engine();
    let module = example(&engine, "louder").await;
    assert_eq!(module.kind(), Kind::Function);
    let function = module.function(Grants::none(Arc::new(Printed::default()))).expect("a function");
    for _ in 0..20 {
        assert_eq!(ask(&function, "/").await, (StatusCode::OK, "say something, and hear it louder\n".to_string()));
    }
    let (mut told, body) = http_body_util::channel::Channel::<Bytes, shoal_engine::BoxError>::new(1);
    let request = Request::post("/").body(body.boxed()).expect("a request");
    let response = tokio::time::timeout(PATIENCE, function.call(request)).await.expect("an answer");
    let mut heard = response.into_body();
    for word in ["first", "second", "third"] {
        told.send_data(Bytes::from(word)).await.expect("it is taken");
        let mut answer = Vec::new();
        while answer.len() < word.len() {
            let frame = tokio::time::timeout(PATIENCE, heard.frame()).await.expect("in time");
            answer.extend_from_slice(&frame.expect("there is more").expect("it is right").into_data().expect("data"));
        }
        assert_eq!(answer, word.to_uppercase().as_bytes());
    }
    drop(told);
    let end = tokio::time::timeout(PATIENCE, heard.frame()).await.expect("in time");
    assert!(end.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(http_body::Frame::is_trailers)), "{end:?}");
    drop(heard);
    eventually(|| (function.usage().memory_bytes() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_process_of_wasi_0_3_does_several_things_at_once() {
    let (exit, printed) = run("tandem", &["60", "1", "20"], |_| {}).await;
    assert_eq!((exit.code, exit.reason), (0, ExitReason::Exited), "{printed}");
    assert_eq!(printed, "1 ms have passed\n20 ms have passed\n60 ms have passed\n");
    let (exit, printed) = run("tandem", &["soon"], |_| {}).await;
    assert_eq!((exit.code, printed.as_str()), (1, "tandem: say numbers of milliseconds\n"));
}

#[tokio::test]
async fn compiled_code_of_wasi_0_3_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = EngineConfig { cache_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
    for turn in 0..2 {
        let engine = Engine::new(&config).expect("an engine");
        let wasm = path("louder");
        let module = engine.load("louder", move || match turn {
            0 => std::fs::read(&wasm),
            _ => Err(std::io::Error::other("it is asked for again")),
        });
        let function = module.await.expect("it loads").function(Grants::none(Arc::new(Printed::default())));
        assert_eq!(ask(&function.expect("a function"), "/").await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn processes_that_compute_without_end_let_others_answer_and_are_ended_at_once() {
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() }).expect("an engine");
    let spin = load(&engine, &core(r#"(module (func (export "_start") (loop (br 0))))"#)).await.expect("it loads");
    let mut spinning: Vec<_> =
        (0..4).map(|_| spin.start(&Grants::none(Arc::new(Printed::default()))).expect("it starts")).collect();
    // All get their share, wherever they run.
    eventually(|| spinning.iter().all(|process| process.usage().cpu_time().as_millis() >= 50).then_some(())).await;
    let function = example(&engine, "hello").await.function(Grants::none(Arc::new(Printed::default())));
    let function = function.expect("a function");
    for _ in 0..50 {
        assert_eq!(ask(&function, "/").await.0, StatusCode::OK);
    }
    for process in &mut spinning {
        process.kill();
        let exit = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends");
        assert_eq!(exit.reason, ExitReason::Killed);
    }
}

/// Answers what it was asked for, or refuses.
struct Mirror {
    allowed: bool,
}

impl Outbound for Mirror {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>> {
        let allowed = self.allowed;
        Box::pin(async move {
            if !allowed {
                return Err(OutboundError::Denied);
            }
            let text = format!("you asked {}", request.uri());
            Ok(Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()))
        })
    }
}

#[tokio::test]
async fn a_function_reaches_only_what_its_embedder_lets_it() {
    let engine = engine();
    let module = example(&engine, "front").await;
    for (allowed, expected) in [(true, "front asked back: you asked http://back/x"), (false, "HttpRequestDenied")] {
        let mut grants = Grants::none(Arc::new(Printed::default()));
        grants.outbound = Arc::new(Mirror { allowed });
        let (_, body) = ask(&module.function(grants).expect("a function"), "/x").await;
        assert!(body.contains(expected), "{body}");
    }
}

#[tokio::test]
async fn a_process_listens_on_its_own_port_and_closes_it_with_its_end() {
    let engine = engine();
    let printed = Arc::new(Printed::default());
    let mut grants = Grants::none(printed.clone());
    grants.environment = vec![("PORT".to_string(), "80".to_string()), ("PERIOD_MS".to_string(), "600000".to_string())];
    let module = example(&engine, "ticker").await;
    let pods = [Pod::new("10.64.0.2"), Pod::new("10.64.0.3")];
    // Both have port 80.
    let mut processes = Vec::new();
    for pod in &pods {
        grants.sockets = Some(pod.clone());
        processes.push(module.start(&grants).expect("it starts"));
    }
    for pod in &pods {
        let mut stream = eventually(|| pod.open("10.64.0.9:1000", 80)).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: ticker\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").expect("a text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("1 tick\n"), "{answer}");
    }
    assert!(printed.text().contains("listens at 0.0.0.0:80\n"), "{}", printed.text());
    for mut process in processes {
        process.kill();
        tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends");
    }
    assert!(pods.iter().all(|pod| pod.open("10.64.0.9:1000", 80).is_none()));
}

#[tokio::test]
async fn a_process_that_listens_for_it_ends_by_itself_when_it_is_asked_to_stop() {
    let engine = engine();
    let printed = Arc::new(Printed::default());
    let mut grants = Grants::none(printed.clone());
    grants.environment = vec![("PERIOD_MS".to_string(), "600000".to_string())];
    let mut process = example(&engine, "ticker").await.start(&grants).expect("it starts");
    eventually(|| printed.text().contains("1 tick\n").then_some(())).await;
    let left = process.ask_stop();
    let exit = tokio::select! {
        exit = tokio::time::timeout(PATIENCE, process.wait()) => exit.expect("it ends"),
        () = left => panic!("it is to be waited for"),
    };
    assert_eq!((exit.code, exit.reason), (0, ExitReason::Exited));
    assert!(printed.text().ends_with("ticker stops after 1 lines\n"), "{}", printed.text());
}

#[tokio::test]
async fn a_process_that_is_asked_to_stop_lets_nobody_in_and_those_who_are_in_finish() {
    for name in ["echo", "chorus"] {
        let greeting = format!("{name} of nobody\n");
        is_drained(name, &greeting).await;
    }
}

async fn is_drained(name: &str, greeting: &str) {
    let engine = engine();
    let pod = Pod::new("10.64.0.2");
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = [name, "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(pod.clone());
    let process = example(&engine, name).await.start(&grants).expect("it starts");
    let mut stream = eventually(|| pod.open("10.64.0.9:1000", 7)).await;
    stream.read_exact(&mut vec![0; greeting.len()]).await.expect("a greeting");
    let late = pod.open("10.64.0.9:1001", 7).expect("it still listens");
    let mut left = process.ask_stop();
    assert!(pod.open("10.64.0.9:1002", 7).is_none());
    assert!(futures_util::poll!(&mut left).is_pending());
    for (mut stream, heard) in [(stream, ""), (late, greeting)] {
        stream.write_all(b"the rest").await.expect("it is taken");
        stream.shutdown().await.expect("an end");
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").expect("a text");
        assert_eq!(answer, format!("{heard}the rest"));
    }
    tokio::time::timeout(PATIENCE, left).await.expect("nobody is connected any more");
}

#[tokio::test]
async fn what_cannot_hear_that_it_should_stop_need_not_be_waited_for_but_one_that_reads_its_input_ends_with_it() {
    let engine = engine();
    let deaf = load(&engine, &core(r#"(module (func (export "_start") (loop (br 0))))"#)).await.expect("it loads");
    let deaf = deaf.start(&Grants::none(Arc::new(Printed::default()))).expect("it starts");
    tokio::time::timeout(PATIENCE, deaf.ask_stop()).await.expect("nothing to wait for");

    let (printed, (writer, stdin)) = (Arc::new(Printed::default()), shoal_engine::Stdin::pipe());
    let mut grants = Grants::none(printed.clone());
    grants.arguments = vec!["cat".to_string()];
    grants.stdin = stdin;
    let mut reader = example(&engine, "toolbox").await.start(&grants).expect("it starts");
    assert!(writer.write(Bytes::from_static(b"first\n")).await);
    eventually(|| (printed.text() == "first\n").then_some(())).await;
    let mut left = reader.ask_stop();
    let exit = tokio::time::timeout(PATIENCE, reader.wait()).await.expect("it ends");
    assert_eq!(exit.code, 0);
    assert!(futures_util::poll!(&mut left).is_pending());
}

#[tokio::test]
async fn a_process_greets_first_and_hears_its_caller_out() {
    for name in ["echo", "chorus"] {
        hears_out(name, &format!("{name} of nobody\n")).await;
    }
}

async fn hears_out(name: &str, greeting: &str) {
    let engine = engine();
    let (printed, pod) = (Arc::new(Printed::default()), Pod::new("10.64.0.2"));
    let mut grants = Grants::none(printed.clone());
    grants.arguments = [name, "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(pod.clone());
    let _process = example(&engine, name).await.start(&grants).expect("it starts");
    let mut stream = eventually(|| pod.open("10.64.0.9:1000", 7)).await;
    let heard = async {
        let mut said = vec![0; greeting.len()];
        stream.read_exact(&mut said).await.expect("a greeting");
        assert_eq!(said, greeting.as_bytes());
        // More than lies between them, so that both sides must wait for each other.
        let said: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut read, mut write) = tokio::io::split(stream);
        let saying = async {
            write.write_all(&said).await.expect("it is taken");
            write.shutdown().await.expect("an end");
        };
        let mut back = Vec::new();
        let (_, read) = tokio::join!(saying, read.read_to_end(&mut back));
        read.expect("an end");
        assert!(back == said, "{} of {} came back", back.len(), said.len());
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("it is heard in time");
    assert!(printed.text().contains("connected from 10.64.0.9:1000\n"), "{}", printed.text());

    // The same by datagrams.
    let (sender, mut answers) = mpsc::unbounded_channel();
    let socket: SocketAddr = "10.64.0.9:2000".parse().expect("an address");
    pod.world.lock().expect("a lock").datagrams.insert(socket, sender);
    let port = "10.64.0.2:7".parse().expect("an address");
    pod.deliver(port, Datagram { from: socket, bytes: Bytes::from_static(b"hello") });
    let answer = tokio::time::timeout(PATIENCE, answers.recv()).await.expect("in time").expect("an answer");
    assert_eq!(answer, Datagram { from: port, bytes: Bytes::from_static(b"hello") });
}

#[tokio::test]
async fn a_process_with_as_many_connections_as_it_may_lets_the_next_wait() {
    // Of 4,096 sockets one listens.
    const MOST: usize = 4_095;
    let engine = engine();
    let pod = Pod::new("10.64.0.2");
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = ["chorus", "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(pod.clone());
    let _process = example(&engine, "chorus").await.start(&grants).expect("it starts");
    let mut streams = vec![eventually(|| pod.open("10.64.0.9:1000", 7)).await];
    streams.extend((1..MOST).map(|_| pod.open("10.64.0.9:1000", 7).expect("it listens")));
    let mut greeting = [0; 17];
    for stream in &mut streams {
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut greeting)).await.expect("in time").expect("a greeting");
    }
    let mut next = pod.open("10.64.0.9:1001", 7).expect("it listens");
    let mut greeted = Box::pin(next.read_exact(&mut greeting));
    // Others are served meanwhile.
    let stream = &mut streams[1];
    stream.write_all(b"still there").await.expect("it is taken");
    stream.read_exact(&mut [0; 11]).await.expect("it comes back");
    assert!(futures_util::poll!(&mut greeted).is_pending());
    streams.remove(0);
    tokio::time::timeout(PATIENCE, greeted).await.expect("in time").expect("a greeting");
}

#[tokio::test]
async fn a_process_connects_by_name_and_sees_the_addresses_that_it_asked_for() {
    connects("echo", ["Connection refused", "Permission denied"]).await;
    connects("chorus", ["ConnectionRefused", "AccessDenied"]).await;
}

/// `refused` and `denied` are its words for a connection that is refused and one that is not allowed.
async fn connects(name: &'static str, [refused, denied]: [&str; 2]) {
    let world = Arc::default();
    let server = Pod::of(&world, "10.64.0.2");
    let engine = engine();
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = [name, "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(server.clone());
    let _process = example(&engine, name).await.start(&grants).expect("it starts");
    eventually(|| server.open("10.64.0.9:1000", 7)).await;
    let ask = |arguments: &'static [&'static str]| {
        let client = Pod::of(&world, "10.64.0.3");
        async move { run(name, arguments, |grants| grants.sockets = Some(client)).await }
    };

    let (exit, printed) = ask(&["ask", "server:7", "hello"]).await;
    assert_eq!(exit.code, 0, "{printed}");
    assert!(printed.starts_with("connected to 10.64.0.2:7 from 10.64.0.3:"), "{printed}");
    assert!(printed.ends_with(&format!("\n{name} of nobody\nhello\n")), "{printed}");
    let (exit, printed) = ask(&["ask-udp", "server:7", "hello"]).await;
    assert_eq!((exit.code, printed.as_str()), (0, "10.64.0.2:7 answered hello\n"));
    assert_eq!(ask(&["resolve", "server"]).await.1, "10.64.0.2\n");

    for (arguments, expected) in [
        (&["ask", "server:8", "hello"][..], refused),
        (&["ask", "192.0.2.1:80", "hello"], denied),
        (&["ask-udp", "192.0.2.1:80", "hello"], denied),
        (&["resolve", "nobody"], name),
    ] {
        let (exit, printed) = ask(arguments).await;
        assert!(exit.code == 1 && printed.contains(expected), "{arguments:?}: {printed}");
    }
}

#[tokio::test]
async fn a_function_connects_and_each_request_is_told_when_it_may_not() {
    let engine = engine();
    let world = Arc::default();
    let server = Pod::of(&world, "10.64.0.2");
    let mut grants = Grants::none(Arc::new(Printed::default()));
    grants.arguments = ["echo", "serve", "7"].map(str::to_string).into();
    grants.sockets = Some(server.clone());
    let _process = example(&engine, "echo").await.start(&grants).expect("it starts");
    eventually(|| server.open("10.64.0.9:1000", 7)).await;
    let teller = example(&engine, "teller").await;
    for (echo, sockets, wanted) in [
        ("server:7", true, "teller heard: echo of nobody\nx\n"),
        ("192.0.2.1:7", true, "Permission denied"),
        ("server:7", false, "could not talk"),
    ] {
        let mut grants = Grants::none(Arc::new(Printed::default()));
        grants.environment = vec![("ECHO".to_string(), echo.to_string())];
        grants.sockets = sockets.then(|| Pod::of(&world, "10.64.0.3") as Arc<dyn Sockets>);
        let (_, body) = ask(&teller.function(grants).expect("a function"), "/x").await;
        assert!(body.contains(wanted), "{body}");
    }
}

#[tokio::test]
async fn a_process_without_sockets_cannot_listen() {
    let engine = engine();
    let printed = Arc::new(Printed::default());
    let mut grants = Grants::none(printed.clone());
    grants.environment = vec![("PORT".to_string(), "80".to_string()), ("PERIOD_MS".to_string(), "1".to_string())];
    let _process = example(&engine, "ticker").await.start(&grants).expect("it starts");
    eventually(|| printed.text().contains("2 tick").then_some(())).await;
    assert!(printed.text().contains("ticker: port 80: "), "{}", printed.text());
}

/// Looks until there is something to see.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it happens in time")
}

/// An HTTP function whose handler does `body` and never answers.
fn handler(body: &str) -> Vec<u8> {
    core(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $module (func (export "handle") (param i32 i32) {body}))
            (core instance $core (instantiate $module))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $core "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

async fn handling(engine: &Arc<Engine>, body: &str, change: impl FnOnce(&mut Grants)) -> Function {
    let mut grants = Grants::none(Arc::new(Printed::default()));
    change(&mut grants);
    load(engine, &handler(body)).await.expect("it loads").function(grants).expect("a function")
}

#[tokio::test]
async fn a_function_that_traps_or_says_nothing_is_answered_for() {
    let engine = engine();
    let traps = handling(&engine, "unreachable", |_| {}).await;
    let (status, body) = ask(&traps, "/").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("the function failed"), "{body}");
    assert!(traps.take_failure().is_some_and(|failure| failure.contains("unreachable")));
    assert_eq!(traps.take_failure(), None);
    let silent = handling(&engine, "nop", |_| {}).await;
    assert_eq!(ask(&silent, "/").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let stats = engine.stats();
    assert!(stats.requests.contains(&("trapped", 1)) && stats.requests.contains(&("unanswered", 1)), "{stats:?}");
    assert_eq!((stats.instantiations.count, stats.loads.count, stats.refusals), (2, 2, 0));
    // Whoever waits for a failure hears of the one that comes, and of one that was before.
    let (failure, _) = tokio::join!(traps.failure(), ask(&traps, "/"));
    assert!(failure.contains("wasm backtrace"), "{failure}");
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_ended() {
    let engine = engine();
    let spins = handling(&engine, "(loop (br 0))", |grants| grants.request_timeout = Duration::from_millis(20)).await;
    assert_eq!(ask(&spins, "/").await.0, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(spins.take_failure(), Some("it took longer than 20ms".to_string()));
    let hello =
        example(&engine, "hello").await.function(Grants::none(Arc::new(Printed::default()))).expect("a function");
    assert_eq!(ask(&hello, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn more_requests_than_may_wait_are_told_to_come_again() {
    let engine = engine();
    let busy = handling(&engine, "(loop (br 0))", |grants| grants.concurrency = 1).await;
    let request = || Request::get("/").body(Empty::new().map_err(|never| match never {}).boxed()).expect("a request");
    let (mut works, mut waits) = (Box::pin(busy.call(request())), Box::pin(busy.call(request())));
    assert!(futures_util::poll!(&mut works).is_pending() && futures_util::poll!(&mut waits).is_pending());
    let refused = busy.call(request()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(http::header::RETRY_AFTER));
    // Who goes away makes room.
    drop((works, waits));
    let mut again = Box::pin(busy.call(request()));
    let is_admitted = async {
        while futures_util::poll!(&mut again).is_ready() {
            again = Box::pin(busy.call(request()));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_admitted).await.expect("there is room again");
    busy.kill();
    assert_eq!(again.await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_instance_is_kept_only_where_it_is_allowed_and_as_often_as_it_is() {
    let engine = engine();
    let module = example(&engine, "hello").await;
    // What is kept keeps its memory.
    for (requests, kept_after) in [(None, [false, false, false]), (Some(3), [true, true, false])] {
        let reuse = requests.map(|requests| Reuse { instances: 4, requests, concurrency: 1 });
        let grants = Grants { reuse, ..Grants::none(Arc::new(Printed::default())) };
        let function = module.function(grants).expect("a function");
        for is_kept in kept_after {
            assert_eq!(ask(&function, "/").await.0, StatusCode::OK, "{reuse:?}");
            eventually(|| (is_kept == (function.usage().memory_bytes() > 0)).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn an_instance_that_has_not_answered_is_not_kept() {
    let engine = engine();
    let reuse = Some(Reuse { instances: 4, requests: 9, concurrency: 1 });
    let silent = handling(&engine, "nop", |grants| grants.reuse = reuse).await;
    for _ in 0..3 {
        let (status, body) = ask(&silent, "/").await;
        assert!(status == StatusCode::INTERNAL_SERVER_ERROR && body.contains("without an answer"), "{status} {body}");
    }
}

#[tokio::test]
async fn a_component_may_end_with_any_code() {
    let text = r#"(component
        (import "wasi:cli/exit@0.2.12" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
        (core func $code (canon lower (func $exit "exit-with-code")))
        (core module $module
            (import "host" "code" (func $code (param i32)))
            (func (export "run") (result i32) (call $code (i32.const 42)) (i32.const 0)))
        (core instance $core (instantiate $module (with "host" (instance (export "code" (func $code))))))
        (func $run (result (result)) (canon lift (core func $core "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.12" (instance $command)))"#;
    let engine = engine();
    let module = load(&engine, &core(text)).await.expect("it loads");
    let mut process = module.start(&Grants::none(Arc::new(Printed::default()))).expect("it starts");
    let exit = process.wait().await;
    assert_eq!((exit.code, exit.reason), (42, ExitReason::Exited));
}

#[tokio::test]
async fn a_read_only_directory_cannot_be_written() {
    // Creates the file `x` in its first directory and ends with the error number.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "x")
        (func (export "_start")
            (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)
                (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 8)))))"#;
    let engine = engine();
    let module = load(&engine, &core(text)).await.expect("it loads");
    for read_only in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut grants = Grants::none(Arc::new(Printed::default()));
        grants.preopens = vec![Preopen { host: folder.path().to_path_buf(), guest: "/data".to_string(), read_only }];
        let exit = module.start(&grants).expect("it starts").wait().await;
        assert_eq!((exit.code != 0, folder.path().join("x").exists()), (read_only, !read_only), "{exit:?}");
    }
}

#[tokio::test]
async fn what_cannot_run_is_refused_by_name() {
    let engine = engine();
    let error = load(&engine, b"\x7fELF\x02\x01").await.err().expect("no module");
    assert!(matches!(&error, LoadError::NotWasm(start) if start.starts_with("7f 45 4c 46")), "{error}");
    let text = r#"(module (import "sky" "hook" (func)) (func (export "_start")))"#;
    let error = load(&engine, &core(text)).await.err().expect("a missing import").to_string();
    assert!(error.contains("sky") && error.contains("hook"), "{error}");
    let text = r#"(component (import "acme:db/store@1.0.0" (instance (export "get" (func))))
        (import "acme:log/lines" (instance (export "write" (func))))
        (core module $module (func (export "run") (result i32) (i32.const 0)))
        (core instance $core (instantiate $module))
        (func $run (result (result)) (canon lift (core func $core "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#;
    let error = load(&engine, &core(text)).await.err().expect("missing imports");
    assert_eq!(error, LoadError::Import("acme:db/store@1.0.0, acme:log/lines".to_string()));
    let error = load(&engine, &core("(module (func (export \"add\")))")).await.err().expect("a library");
    assert_eq!(error, LoadError::Library);
    let error = load(&engine, b"\0asm\x01\0\0\0garbage").await.err().expect("it is not valid");
    assert!(matches!(error, LoadError::Compile(_)), "{error}");
}

#[tokio::test]
async fn compiled_code_is_kept_and_found_without_the_module() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = EngineConfig { function_instances: 4, cache_dir: Some(folder.path().to_path_buf()), threads: 1 };
    let first = Engine::new(&config).expect("an engine");
    example(&first, "hello").await;
    drop(first);
    let second = Engine::new(&config).expect("an engine");
    let module = second
        .load("hello", || Err(std::io::Error::other("the module must not be read")))
        .await
        .expect("from the folder");
    let function = module.function(Grants::none(Arc::new(Printed::default()))).expect("a function");
    assert_eq!(ask(&function, "/").await.0, StatusCode::OK);
}
