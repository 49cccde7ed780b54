//! A local server with the interface of Hugging Face's hub.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};

type Files = HashMap<String, Vec<(String, Vec<u8>)>>;

/// The server's files by repository, and the number of downloads from each repository.
pub struct Server {
    pub endpoint: String,
    files: Arc<Mutex<Files>>,
    pub sent: Arc<Mutex<HashMap<String, usize>>>,
    odd: Arc<Mutex<HashMap<String, Odd>>>,
}

/// Marks of files that lead out of the cache.
struct Odd {
    /// The number of answers with plain marks before them.
    after: usize,
    start: String,
}

/// Lets the marks of a repository begin with `start`, after some that are plain.
pub fn mark(repository: &str, after: usize, start: &str) {
    let start = start.into();
    let mut odd = server().odd.lock().unwrap();
    odd.insert(repository.into(), Odd { after, start });
}

/// One server for all tests, because the environment of the process holds its address.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::env::set_var("HF_ENDPOINT", &endpoint);
        std::env::set_var("NO_PROXY", "127.0.0.1");
        let server = Server {
            endpoint,
            files: Arc::default(),
            sent: Arc::default(),
            odd: Arc::default(),
        };
        let (files, sent, odd) = (
            server.files.clone(),
            server.sent.clone(),
            server.odd.clone(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, sent, odd) = (files.clone(), sent.clone(), odd.clone());
                std::thread::spawn(move || answer(stream, &files, &sent, &odd));
            }
        });
        server
    })
}

/// Answers one request: the files of a repository, the header of a file, or a file.
fn answer(
    mut stream: TcpStream,
    files: &Mutex<Files>,
    sent: &Mutex<HashMap<String, usize>>,
    odd: &Mutex<HashMap<String, Odd>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let (method, path) = request.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
    let revision = "refs%2Fconvert%2Fparquet";
    let listing = path
        .strip_prefix("/api/datasets/")
        .and_then(|path| path.strip_suffix(&format!("/revision/{revision}")));
    let file = path
        .strip_prefix("/datasets/")
        .and_then(|path| path.split_once(&format!("/resolve/{revision}/")));
    let files = files.lock().unwrap();
    let body = match (listing, file) {
        (Some(repository), _) => files.get(repository).map(|files| {
            let names: Vec<_> = files
                .iter()
                .map(|(name, _)| serde_json::json!({ "rfilename": name }))
                .collect();
            serde_json::json!({ "id": repository, "siblings": names })
                .to_string()
                .into_bytes()
        }),
        (_, Some((repository, name))) => {
            let found = files
                .get(repository)
                .and_then(|files| files.iter().find(|(found, _)| found == name));
            *sent.lock().unwrap().entry(repository.into()).or_default() +=
                usize::from(method == "GET");
            found
                .map(|(_, bytes)| bytes.clone())
                .filter(|bytes| !bytes.is_empty())
        }
        _ => None,
    };
    drop(files);
    let status = if body.is_some() {
        "200 OK"
    } else {
        "404 Not Found"
    };
    let body = body.unwrap_or_default();
    let mut odd = odd.lock().unwrap();
    let odd = file.and_then(|(repository, _)| odd.get_mut(repository));
    let start = odd.map_or("", |odd| match odd.after {
        0 => &odd.start,
        _ => {
            odd.after -= 1;
            ""
        }
    });
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{start}{:x}\"\r\nX-Repo-Commit: {}\r\nConnection: close\r\n\r\n",
        body.len(),
        path.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())),
        "0123456789".repeat(4)
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method == "GET" {
        stream.write_all(&body).ok()?;
    }
    stream.flush().ok()
}

/// Adds a repository with these files to the server.
pub fn put(repository: &str, train: Vec<u8>, test: Vec<u8>) {
    let files = [
        ("default/test/0000.parquet", test),
        ("default/train/0000.parquet", train),
        (".gitattributes", vec![1]),
    ];
    let files = files.map(|(name, bytes)| (name.to_string(), bytes));
    server()
        .files
        .lock()
        .unwrap()
        .insert(repository.into(), files.into());
}
