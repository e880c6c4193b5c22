//! `stakeout health`: asks a running process whether it is ready, for health checks of containers that have neither a
//! shell nor curl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Of the answer; the status is in its first line.
const BYTES_MAX: u64 = 64 << 10;

/// True if `/readyz` says so; what it says otherwise is printed.
pub fn run(config: &Config) -> Result<bool> {
    let Some(listen) = config.listen else {
        bail!("`listen` is off: there is nobody to ask\nhint: set `listen: 127.0.0.1:7070`");
    };
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&listen, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /readyz HTTP/1.0\r\nHost: {listen}\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = asked()
        .with_context(|| format!("nobody answers at {listen}\nhint: is `stakeout run` running with this config?"))?;
    let ready = answer.split(' ').nth(1) == Some("200");
    match ready {
        true => println!("ready at {listen}"),
        false => {
            let says = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).trim();
            println!("not ready at {listen}: {}", if says.is_empty() { "no reason given" } else { says });
        }
    }
    Ok(ready)
}
