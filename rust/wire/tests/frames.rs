//! Frames: limits by type, long messages in parts, and the same messages wherever the network
//! cuts the stream.

use flightmode_wire::client::FromClient;
use flightmode_wire::frame::{Frame, FrameError, Rules, Scan, Scanner, Stage, Talker};
use proptest::prelude::*;

fn session(talker: Talker) -> Rules {
    Rules::new(talker, Stage::Session)
}

fn header(tag: u8, len: u32) -> Vec<u8> {
    [&[tag][..], &len.to_be_bytes()].concat()
}

/// All frames of a stream that arrives in `pieces`; long ones once, with their bytes counted.
fn frames(pieces: &[&[u8]], whole_up_to: usize) -> Result<Vec<Frame>, FrameError> {
    let mut scanner = Scanner::new(session(Talker::Client), whole_up_to);
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let step = match scanner.scan(&buffer)? {
                Scan::Need(count) => {
                    assert!(count > 0);
                    break;
                }
                Scan::Whole(frame) => {
                    found.push(frame);
                    frame.len
                }
                Scan::Part {
                    frame,
                    ready,
                    left,
                    first,
                } => {
                    if first {
                        assert!(ready >= whole_up_to.min(frame.len));
                        found.push(frame);
                    }
                    assert_eq!(scanner.is_inside(), left > 0);
                    ready
                }
            };
            buffer.drain(..step);
        }
    }
    Ok(found)
}

#[test]
fn a_header_in_pieces_is_waited_for() {
    let rules = session(Talker::Client);
    for cut in 0..5 {
        assert_eq!(rules.peek(&header(b'S', 4)[..cut]), Ok(None));
    }
    assert_eq!(
        rules.peek(&header(b'S', 4)),
        Ok(Some(Frame { tag: b'S', len: 5 }))
    );
}

#[test]
fn pitfall_34_nothing_but_a_short_password_may_come_before_the_login() {
    let rules = Rules::new(Talker::Client, Stage::Login);
    for tag in 0..=u8::MAX {
        let seen = rules.peek(&[tag]);
        assert_eq!(seen.is_ok(), tag == b'p', "{tag}");
    }
    assert!(rules.peek(&header(b'p', 8_196)).is_ok());
    assert!(matches!(
        rules.peek(&header(b'p', 8_197)),
        Err(FrameError::Length { .. })
    ));
}

#[test]
fn pitfall_34_a_password_is_refused_after_the_login() {
    let seen = session(Talker::Client).peek(&header(b'p', 20));
    assert_eq!(seen, Err(FrameError::Unexpected { tag: b'p' }));
}

#[test]
fn pitfall_47_a_length_is_checked_by_type_before_its_body_is_waited_for() {
    let client = session(Talker::Client);
    for len in [0, 3, u32::MAX, 0x8000_0000, 0x4000_0003] {
        assert!(client.peek(&header(b'Q', len)).is_err(), "{len}");
    }
    assert!(client.peek(&header(b'S', 5)).is_err());
    assert!(client.peek(&header(b'D', 10_001)).is_err());
    assert!(client.peek(&header(b'd', 0x3fff_ffff)).is_ok());
    let server = session(Talker::Server);
    assert!(server.peek(&header(b'Z', 6)).is_err());
    assert!(server.peek(&header(b'Z', 4)).is_err());
    assert!(server.peek(&header(b'C', 40_000)).is_err());
    assert!(server.peek(&header(b'D', 40_000)).is_ok());
}

#[test]
fn pitfall_47_what_a_server_says_that_has_to_be_whole_has_an_end() {
    let server = session(Talker::Server);
    for tag in *b"ET" {
        assert!(server.peek(&header(tag, 1 << 20)).is_ok());
        assert!(server.peek(&header(tag, (1 << 20) + 5)).is_err());
    }
    assert!(server.peek(&header(b'A', 8_100)).is_ok());
    assert!(server.peek(&header(b'A', 40_000)).is_err());
    for in_parts in *b"DdVN" {
        assert!(server.peek(&header(in_parts, 0x3000_0000)).is_ok());
    }
}

#[test]
fn a_limit_of_ours_can_only_lower_that_of_postgres() {
    let low = Rules {
        longest: 100,
        ..session(Talker::Client)
    };
    assert!(low.peek(&header(b'Q', 104)).is_ok());
    assert!(low.peek(&header(b'Q', 105)).is_err());
    let high = Rules {
        longest: usize::MAX,
        ..low
    };
    assert!(high.peek(&header(b'Q', 0x7fff_ffff)).is_err());
}

#[test]
fn pitfall_38_a_server_can_say_nothing_but_its_own_messages() {
    let rules = session(Talker::Server);
    let known = b"123nIscZCStGHWTDdVENA";
    for tag in 0..=u8::MAX {
        assert_eq!(rules.peek(&[tag]).is_ok(), known.contains(&tag), "{tag}");
    }
}

#[test]
fn pitfall_47_a_long_message_goes_on_in_parts_without_being_kept() {
    let mut scanner = Scanner::new(session(Talker::Client), 16);
    let mut stream = header(b'd', 4 + 100);
    stream.extend_from_slice(&[7; 100]);
    assert_eq!(scanner.scan(&stream[..10]), Ok(Scan::Need(6)));
    let frame = Frame {
        tag: b'd',
        len: 105,
    };
    let first = Scan::Part {
        frame,
        ready: 40,
        left: 65,
        first: true,
    };
    assert_eq!(scanner.scan(&stream[..40]), Ok(first));
    let last = Scan::Part {
        frame,
        ready: 65,
        left: 0,
        first: false,
    };
    assert_eq!(scanner.scan(&stream[40..]), Ok(last));
    assert!(!scanner.is_inside());
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(1..=u8::MAX, 0..80);
    (0..6, body).prop_map(|(kind, body)| {
        let mut out = Vec::new();
        match kind {
            0 => FromClient::Query(&body),
            1 => FromClient::CopyData(&body),
            2 => FromClient::CopyFail(&body),
            3 => FromClient::Sync,
            4 => FromClient::Execute {
                portal: &body,
                max_rows: 3,
            },
            _ => FromClient::Flush,
        }
        .write(&mut out);
        out
    })
}

proptest! {
    #[test]
    fn a_stream_has_the_same_frames_wherever_it_is_cut(
        messages in proptest::collection::vec(any_message(), 1..12),
        cuts in proptest::collection::vec(0.0..1.0f64, 0..8),
        whole_up_to in 5usize..64,
    ) {
        let stream = messages.concat();
        let mut at: Vec<usize> =
            cuts.iter().map(|cut| (cut * stream.len() as f64) as usize).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let found = frames(&pieces, whole_up_to).unwrap();
        let expected: Vec<usize> = messages.iter().map(Vec::len).collect();
        let lengths: Vec<usize> = found.iter().map(|frame| frame.len).collect();
        prop_assert_eq!(lengths, expected);
    }

    #[test]
    fn any_bytes_are_frames_or_the_one_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let at_once = frames(&[&bytes], 64);
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(at_once.is_err(), frames(&singly, 64).is_err());
    }
}
