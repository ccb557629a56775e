//! A socket that is read in large gulps.
//!
//! rustls asks its stream for 4 KiB at a time: for the names of 5,000 nodes that is 57 calls of the kernel, for 1,000 whole Nodes
//! over 2,000. Here it gets them from a buffer, which belongs to the connection only while there is something in it: thousands
//! of idle connections hold none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Four TLS records. More reads no faster.
const GULP: usize = 64 * 1024;
/// How many empty buffers a thread keeps: it reads for one connection at a time, and few leave something over.
const SPARE: usize = 4;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A socket, and what was read of it but not yet asked for.
#[derive(Debug)]
pub(crate) struct Gulps {
    stream: TcpStream,
    left: Option<Left>,
}

/// The bytes from `start` to `end` of a buffer; never none.
#[derive(Debug)]
struct Left {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Gulps {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, left: None }
    }

    /// The socket itself, for who wants none of the bytes that were read already.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    fn give(&mut self, mut left: Left, asked: &mut ReadBuf<'_>) {
        let count = asked.remaining().min(left.end - left.start);
        asked.put_slice(&left.buffer[left.start..left.start + count]);
        left.start += count;
        if left.start < left.end { self.left = Some(left) } else { keep(left.buffer) }
    }
}

fn spare() -> Box<[u8]> {
    let spare = SPARES.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; GULP].into_boxed_slice())
}

fn keep(buffer: Box<[u8]>) {
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARE {
            spares.push(buffer);
        }
    });
}

impl AsyncRead for Gulps {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        asked: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.left.take() {
            self.give(left, asked);
            return Poll::Ready(Ok(()));
        }
        if asked.remaining() >= GULP {
            return Pin::new(&mut self.stream).poll_read(context, asked);
        }
        let mut buffer = spare();
        let mut read = ReadBuf::new(&mut buffer);
        let result = Pin::new(&mut self.stream).poll_read(context, &mut read);
        let end = read.filled().len();
        if end == 0 {
            keep(buffer);
            return result;
        }
        self.give(Left { buffer, start: 0, end }, asked);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gulps {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut gulps = Gulps::new(listener.accept().await.unwrap().0);
        let sent: Vec<u8> = (0..3 * GULP + 5).map(|index| (index % 251) as u8).collect();
        let mut received = Vec::new();
        let writing = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let reading = async {
            // Of all sizes: small ones are given from the buffer, large ones by the socket.
            for size in [1, 7, 4_096, GULP, 2 * GULP].into_iter().cycle() {
                let mut part = vec![0; size];
                let count = gulps.read(&mut part).await.unwrap();
                if count == 0 {
                    break;
                }
                received.extend_from_slice(&part[..count]);
            }
        };
        tokio::join!(writing, reading);
        assert!(received == sent);
        assert!(gulps.left.is_none(), "an empty buffer is nobody's");
    }
}
