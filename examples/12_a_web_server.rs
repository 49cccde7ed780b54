//! Answers HTTP requests with predictions: a picture is posted, a line of JSON comes
//! back.
//!
//! ```text
//! $ cargo run --release --example 12_a_web_server
//! POST of 365 bytes: {"class":"1","probability":0.99}
//! POST of 5 bytes: {"error":"picture: is no picture, expected PNG, JPEG, WebP, BMP, TIFF or GIF"}
//! ```
//!
//! With an address, such as `127.0.0.1:8000`, and the folder of a run as arguments it
//! serves until it is stopped: `curl --data-binary @digit.png http://127.0.0.1:8000/`.
//!
//! A [`Run`] is `Send + Sync`, so all requests share one. A prediction uses rayon's
//! threads; for many small requests at a time, `RAYON_NUM_THREADS=1` and a thread for
//! each request are faster. A server needs no command line and no downloads: depend on
//! `onward` with `default-features = false`.

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use onward::{Result, Run};

/// A larger picture is refused.
const LARGEST: usize = 10_000_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) {
        let run = Run::open(folder)?.without_data().build()?;
        let listener = TcpListener::bind(&address).expect("the address is free");
        serve(listener, Arc::new(run));
        return Ok(());
    }

    let mut run = Run::builder("progressive")
        .data("digits")
        .set("hidden", vec![300])
        .set("epochs", 3)
        .build()?;
    run.fit(&mut ())?;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || serve(listener, Arc::new(run)));
    for body in [stroke(), b"hello".to_vec()] {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = stream.write_all(head.as_bytes());
        sent.and_then(|()| stream.write_all(&body)).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answered");
        let answer = reply.lines().last().unwrap_or_default();
        println!("POST of {} bytes: {answer}", body.len());
    }
    Ok(())
}

/// Answers each connection on a thread of its own.
fn serve(listener: TcpListener, run: Arc<Run>) {
    for stream in listener.incoming().flatten() {
        let run = run.clone();
        std::thread::spawn(move || {
            // A client that has gone needs no answer.
            let _ = answer(stream, &run);
        });
    }
}

fn answer(mut stream: TcpStream, run: &Run) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let head = "Content-Type: application/json\r\nConnection: close";
    if length > LARGEST {
        let body = serde_json::json!({ "error": format!("expected at most {LARGEST} bytes") });
        let status = "413 Content Too Large";
        return write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}\n");
    }
    let mut picture = vec![0; length];
    reader.read_exact(&mut picture)?;
    let (status, body) = match run.predict_bytes(&[picture], None) {
        Ok(answers) => {
            let (class, probability) = (&answers[0].class, answers[0].probability);
            let probability = probability.map(|p| (100. * p).round() / 100.);
            let body = serde_json::json!({ "class": class, "probability": probability });
            ("200 OK", body)
        }
        Err(error) => {
            let body = serde_json::json!({ "error": error.to_string() });
            ("400 Bad Request", body)
        }
    };
    write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}\n")
}

/// A PNG of a stroke on paper, which looks like a one.
fn stroke() -> Vec<u8> {
    let picture = image::GrayImage::from_fn(60, 60, |x, y| {
        let inside = x.abs_diff(30) < 3 && y.abs_diff(30) < 20;
        image::Luma([if inside { 30 } else { 225 }])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .expect("memory takes it");
    bytes.into_inner()
}
