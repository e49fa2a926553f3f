//! A function of WASI 0.3: repeats what it is sent in capital letters, while it comes in. Without a body it says what it does.

use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response};
use wasip3::wit_bindgen::{StreamReader, StreamResult, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Louder);

struct Louder;

/// The most that is read at once, in bytes.
const PIECE: usize = 16 * 1024;

impl wasip3::exports::http::handler::Guest for Louder {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let is_question = matches!(request.get_method(), Method::Get | Method::Head);
        let (_, no_failure) = wit_future::new(|| Ok(()));
        let (incoming, trailers) = Request::consume_body(request, no_failure);
        let (mut outgoing, body) = wit_stream::new();
        let headers = Fields::new();
        let (response, _) = Response::new(headers, Some(body), trailers);
        spawn_local(async move {
            if is_question {
                outgoing.write_all(b"say something, and hear it louder\n".to_vec()).await;
            } else {
                repeat(incoming, outgoing).await;
            }
        });
        Ok(response)
    }
}

async fn repeat(mut incoming: StreamReader<u8>, mut outgoing: StreamWriter<u8>) {
    loop {
        let (result, mut bytes) = incoming.read(Vec::with_capacity(PIECE)).await;
        bytes.make_ascii_uppercase();
        // Whoever does not listen any more is left alone.
        let is_heard = bytes.is_empty() || outgoing.write_all(bytes).await.is_empty();
        if !is_heard || result == StreamResult::Dropped {
            return;
        }
    }
}
