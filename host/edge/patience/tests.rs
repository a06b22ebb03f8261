use std::future::poll_fn;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

/// Both ends of a connection; who writes to the first is patient for so long.
async fn connection(stall_time_max: Duration) -> (Listening, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (server, _) = accepted.expect("a connection");
    (patient_for(server, stall_time_max).0, client.expect("a connection"))
}

async fn write(listening: &mut Listening) -> io::Result<usize> {
    let bytes = [0; 64 << 10];
    poll_fn(|cx| Pin::new(&mut *listening).poll_write(cx, &bytes)).await
}

#[tokio::test]
async fn who_takes_nothing_is_given_up_after_a_while() {
    let (mut server, _client) = connection(Duration::from_millis(100)).await;
    let error = loop {
        if let Err(error) = write(&mut server).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_takes_a_little_now_and_then_is_not() {
    let (mut server, mut client) = connection(Duration::from_secs(10)).await;
    let reads = async {
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..32 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let read = client.read(&mut buffer).await.expect("it goes on");
            assert!(read > 0, "it goes on");
        }
        client
    };
    let writes = async { while write(&mut server).await.is_ok() {} };
    tokio::select! {
        _ = reads => {}
        () = writes => panic!("given up"),
    }
}
