//! Small proxies: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928), with a password or not.

use std::{
    env, io,
    net::SocketAddr,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::scripted::Visit;

/// A proxy on a port of its own. Every name it is asked for is `127.0.0.1` to it.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What a client has to say to be let through: of an HTTP proxy the value of
/// `Proxy-Authorization`, of a SOCKS proxy `name:password`.
pub type Password = Option<&'static str>;

impl Proxy {
    /// An HTTP proxy.
    pub async fn http(password: Password) -> Self {
        Self::start(move |io, proxy| async move { connect(io, &proxy, password).await }).await
    }

    /// A SOCKS5 proxy.
    pub async fn socks(password: Password) -> Self {
        Self::start(move |io, proxy| async move { socks(io, &proxy, password).await }).await
    }

    /// A proxy that speaks in a way of the caller's.
    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream, Self) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::default();
        let proxy = Self { address, asked };
        let started = proxy.clone();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                tokio::spawn(serve(io, proxy.clone()));
            }
        });
        started
    }

    /// What it was asked to connect to, and forgets it.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one test of this program in a process of its own, for the environment belongs to the
    /// process: there `variable` names this proxy, `NO_PROXY` is as told, no other variable tells of
    /// a proxy, and `mark` lets the test know where it is.
    pub fn run_test(
        &self,
        test: &str,
        variable: &str,
        no_proxy: &str,
        mark: (&str, &str),
    ) -> ExitStatus {
        let mut command = Command::new(env::current_exe().expect("a path"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        let status = command
            .args([test, "--exact"])
            .env(mark.0, mark.1)
            .env(variable, format!("http://{}", self.address))
            .env("NO_PROXY", no_proxy)
            .env_remove("REQUEST_METHOD")
            .stdout(Stdio::null())
            .status();
        status.expect("this program")
    }

    fn note(&self, target: String) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(target);
    }
}

/// Speaks HTTP CONNECT over any stream.
///
/// # Errors
///
/// Those of the streams.
pub async fn connect<Io>(io: Io, proxy: &Proxy, password: Password) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut visit) = Visit::of(io).await else {
        return Ok(());
    };
    let target = visit.path().to_owned();
    let is_known = password.is_none_or(|it| visit.header("proxy-authorization") == [it]);
    proxy.note(target.clone());
    if !visit.head.starts_with("CONNECT ") {
        visit.write("HTTP/1.1 405 x\r\n\r\n").await;
    } else if !is_known {
        visit.write("HTTP/1.1 407 x\r\n\r\n").await;
    } else {
        let (_, port) = target.rsplit_once(':').unwrap_or_default();
        let port = port.parse().map_err(io::Error::other)?;
        let mut there = TcpStream::connect(("127.0.0.1", port)).await?;
        visit
            .write("HTTP/1.1 200 Connection established\r\n\r\n")
            .await;
        copy_bidirectional(&mut visit.io, &mut there).await?;
    }
    Ok(())
}

async fn socks(mut io: TcpStream, proxy: &Proxy, password: Password) -> io::Result<()> {
    assert_eq!(io.read_u8().await?, 5, "the version");
    let mut methods = vec![0; usize::from(io.read_u8().await?)];
    io.read_exact(&mut methods).await?;
    let method = if password.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return io.write_all(&[5, 0xff]).await;
    }
    io.write_all(&[5, method]).await?;
    if let Some(password) = password {
        assert_eq!(io.read_u8().await?, 1, "the version of RFC 1929");
        let (name, word) = (string(&mut io).await?, string(&mut io).await?);
        let is_known = format!("{name}:{word}") == password;
        io.write_all(&[1, u8::from(!is_known)]).await?;
        if !is_known {
            return Ok(());
        }
    }
    let mut head = [0; 4];
    io.read_exact(&mut head).await?;
    assert_eq!(head[..3], [5, 1, 0], "a CONNECT");
    let host = match head[3] {
        1 => {
            let mut address = [0; 4];
            io.read_exact(&mut address).await?;
            std::net::IpAddr::from(address).to_string()
        }
        4 => {
            let mut address = [0; 16];
            io.read_exact(&mut address).await?;
            std::net::IpAddr::from(address).to_string()
        }
        _ => string(&mut io).await?,
    };
    let port = io.read_u16().await?;
    proxy.note(format!("{host}:{port}"));
    let Ok(mut there) = TcpStream::connect(("127.0.0.1", port)).await else {
        return io.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    io.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut io, &mut there).await?;
    Ok(())
}

/// A byte that says how long it is, and the rest.
async fn string(io: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; usize::from(io.read_u8().await?)];
    io.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
