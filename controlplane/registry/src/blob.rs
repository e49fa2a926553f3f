//! Blobs: whether one is there, its bytes or a range of them, and its removal.

use std::io::SeekFrom;
use std::path::Path;

use futures_util::TryStreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use shoal_images::blobs::Digest;
use shoal_link::http::Body;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::error::Problem;
use crate::{Access, Registry, respond};

impl Registry {
    pub(crate) async fn blob(
        &self,
        name: &str,
        digest: &str,
        request: Request<Body>,
        access: Access,
    ) -> Result<Response<Body>, Problem> {
        let digest = Digest::parse(digest).map_err(|error| Problem::digest_invalid(error.to_string()))?;
        if request.method() == Method::HEAD && access == Access::Push {
            // Whoever may push asks in order to leave out what is there.
            self.hold(&digest)?;
        }
        match *request.method() {
            Method::GET | Method::HEAD => self.read_blob(&digest, &request).await,
            // The same file may serve other repositories: what no manifest names is collected later.
            Method::DELETE => {
                Err(Problem::unsupported(format!("delete the manifests of {name:?}; their blobs follow by themselves")))
            }
            _ => Err(Problem::unsupported("blobs are pushed through /blobs/uploads/")),
        }
    }

    async fn read_blob(&self, digest: &Digest, request: &Request<Body>) -> Result<Response<Body>, Problem> {
        let path = self.local_blob(digest).await?.ok_or_else(|| Problem::blob_unknown(&digest.to_string()))?;
        let reading = |error: std::io::Error| Problem::internal("read a blob", &error);
        let size = tokio::fs::metadata(&path).await.map_err(reading)?.len();
        let range = range(request.headers(), size)?;
        let (start, length) = range.unwrap_or((0, size));
        let mut response = respond::empty(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK })
            .header("docker-content-digest", digest.to_string())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::ETAG, format!("\"{digest}\""));
        if let Some(headers) = response.headers_mut() {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if range.is_some() {
            response = response.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", start + length - 1));
        }
        let body = match *request.method() {
            Method::HEAD => respond::no_body(),
            _ => file_body(&path, start, length).await.map_err(reading)?,
        };
        Ok(response.body(body).expect("the parts are valid"))
    }
}

/// `length` bytes of the file at `path` from `start` on, read as they are sent.
pub(crate) async fn file_body(path: &Path, start: u64, length: u64) -> std::io::Result<Body> {
    let mut file = tokio::fs::File::open(path).await?;
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await?;
    }
    let frames =
        ReaderStream::with_capacity(file.take(length), 64 * 1024).map_ok(http_body::Frame::data).map_err(Into::into);
    Ok(StreamBody::new(frames).boxed())
}

/// The one range that `headers` ask for, as (start, length); several ranges, or none, are the whole (RFC 9110, section 14.2).
fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Problem> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Ok(None);
    };
    let outside = || Problem::range_not_satisfiable(format!("the range {text:?} is outside the blob's {size} bytes"));
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => (start, end.min(size.saturating_sub(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, size.saturating_sub(1)),
        (Err(_), Ok(suffix)) if first.is_empty() && suffix > 0 => (size.saturating_sub(suffix), size.saturating_sub(1)),
        _ => return Ok(None),
    };
    if start >= size { Err(outside()) } else { Ok(Some((start, end - start + 1))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().expect("a header"));
        range(&headers, size).ok()
    }

    #[test]
    fn ranges_are_cut_to_the_blob() {
        assert_eq!(asked("bytes=0-9", 100), Some(Some((0, 10))));
        assert_eq!(asked("bytes=90-200", 100), Some(Some((90, 10))));
        assert_eq!(asked("bytes=90-", 100), Some(Some((90, 10))));
        assert_eq!(asked("bytes=-10", 100), Some(Some((90, 10))));
        assert_eq!(asked("bytes=-1000", 100), Some(Some((0, 100))));
        assert_eq!(asked("bytes=100-", 100), None);
        assert_eq!(asked("bytes=0-1,5-6", 100), Some(None));
        assert_eq!(asked("lines=0-1", 100), Some(None));
    }
}
