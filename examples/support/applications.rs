//! The applications: what their sockets do, one file for each. `showcase` has them all on one port;
//! `tick`, `chat`, `board` and `sensors` have one each.

pub mod board;
pub mod chat;
pub mod sensors;
pub mod tick;

use ws_core::Utf8Bytes;
use ws_tower::{CloseCode, CloseFrame, Error, Message, WebSocket};

/// The next text; `None` at the end. A binary message ends the socket with 1003, and a reason.
async fn next_text(socket: &mut WebSocket) -> Result<Option<Utf8Bytes>, Error> {
    match socket.recv().await.transpose()? {
        Some(Message::Text(text)) => Ok(Some(text)),
        Some(Message::Binary(_)) => {
            let reason = "this socket takes texts only";
            let close = CloseFrame::truncated(CloseCode::UNSUPPORTED_DATA, reason);
            socket.close(close).await;
            Ok(None)
        }
        None => Ok(None),
    }
}

/// What is wrong with a message, for the one who sent it: `{"error":"…"}`.
fn explanation(wrong: &str) -> String {
    serde_json::json!({ "error": wrong }).to_string()
}
