//! Which replies are owed to whom.

use flightmode_pooler::flow::{Failed, Flow, Instead, Reply, Sent, Step, Unasked, Whose};
use flightmode_wire::server::TxStatus;
use proptest::prelude::*;

use Step::{Bind, Close, CopyEnd, DescribeStatement, Execute, FunctionCall, Parse, Query, Sync};

fn send(flow: &mut Flow, steps: &[Step]) {
    for step in steps {
        assert_eq!(
            flow.on_sent(*step, Whose::Clients),
            Sent::Forward,
            "{step:?}"
        );
    }
}

/// Replies as letters; every `ReadyForQuery` says that nothing is open.
fn hear(flow: &mut Flow, tags: &[u8]) {
    for tag in tags {
        let reply = flow.on_reply(*tag, Some(TxStatus::Idle)).unwrap();
        assert!(reply.forward, "{}", char::from(*tag));
    }
}

fn ready(flow: &mut Flow, status: TxStatus) {
    flow.on_reply(b'Z', Some(status)).unwrap();
}

#[test]
fn pitfall_19_a_simple_query_ends_with_ready_and_nothing_else() {
    let mut flow = Flow::new();
    send(&mut flow, &[Query]);
    hear(&mut flow, b"TDCTDCI");
    assert!(!flow.is_free());
    ready(&mut flow, TxStatus::Idle);
    assert!(flow.is_free());
}

#[test]
fn a_server_is_not_free_while_a_transaction_is_open() {
    for status in [TxStatus::Open, TxStatus::Failed] {
        let mut flow = Flow::new();
        send(&mut flow, &[Query]);
        hear(&mut flow, b"C");
        ready(&mut flow, status);
        assert!(!flow.is_free());
        assert!(!flow.is_running());
    }
}

#[test]
fn pitfall_16_a_pipeline_with_several_syncs_is_over_after_the_last() {
    let mut flow = Flow::new();
    send(
        &mut flow,
        &[Parse, Bind, Execute, Sync, Bind, Execute, Sync],
    );
    assert_eq!(flow.ready_owed(), 2);
    hear(&mut flow, b"12DCZ");
    assert!(!flow.is_free());
    hear(&mut flow, b"2DC");
    assert!(!flow.is_free());
    ready(&mut flow, TxStatus::Idle);
    assert!(flow.is_free());
}

#[test]
fn pitfall_15_a_flush_without_a_sync_keeps_the_server() {
    let mut flow = Flow::new();
    send(&mut flow, &[Parse, DescribeStatement]);
    hear(&mut flow, b"1tT");
    assert!(!flow.is_free(), "the group is open");
    assert!(!flow.is_running());
    send(&mut flow, &[Bind, Execute, Sync]);
    hear(&mut flow, b"2CZ");
    assert!(flow.is_free());
}

/// What the error takes with it that comes now.
fn failed(flow: &mut Flow) -> Failed {
    *flow.on_reply(b'E', None).unwrap().failed.unwrap()
}

#[test]
fn pitfall_17_an_error_drops_its_group_and_not_the_next() {
    let mut flow = Flow::new();
    send(&mut flow, &[Parse, Bind, Execute, Sync, Parse, Sync]);
    let reply = flow.on_reply(b'E', None).unwrap();
    assert!(reply.forward);
    assert_eq!(reply.failed.unwrap().dropped, [Parse, Bind, Execute]);
    hear(&mut flow, b"Z1Z");
    assert!(flow.is_free());
}

#[test]
fn pitfall_17_what_comes_after_an_error_is_dropped_until_the_sync_comes() {
    let mut flow = Flow::new();
    send(&mut flow, &[Parse]);
    flow.on_reply(b'E', None).unwrap();
    assert_eq!(flow.on_sent(Bind, Whose::Clients), Sent::Drop);
    assert_eq!(flow.on_sent(Query, Whose::Clients), Sent::Drop);
    assert!(!flow.is_free());
    send(&mut flow, &[Sync]);
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
}

#[test]
fn pitfall_18_a_suspended_portal_ends_its_execute_and_keeps_the_server() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute]);
    hear(&mut flow, b"2DDs");
    assert!(!flow.is_free());
    send(&mut flow, &[Execute, Sync]);
    hear(&mut flow, b"DC");
    ready(&mut flow, TxStatus::Idle);
    assert!(flow.is_free());
}

#[test]
fn pitfall_20_an_answer_of_ours_waits_for_its_turn() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind]);
    assert_eq!(flow.on_sent(Close, Whose::Local), Sent::Later);
    send(&mut flow, &[Sync]);
    let reply = flow.on_reply(b'2', None).unwrap();
    assert_eq!((reply.forward, reply.then), (true, vec![Close]));
    hear(&mut flow, b"Z");
    assert_eq!(flow.on_sent(Sync, Whose::Local), Sent::Answer);
    assert!(flow.is_free());
}

#[test]
fn pitfall_17_an_answer_of_ours_is_dropped_with_its_group() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind]);
    assert_eq!(flow.on_sent(Parse, Whose::Local), Sent::Later);
    assert_eq!(failed(&mut flow).dropped, [Bind, Parse]);
    assert_eq!(flow.on_sent(Close, Whose::Local), Sent::Drop);
}

#[test]
fn what_we_ask_for_a_client_is_swallowed_and_its_error_is_the_clients() {
    let mut flow = Flow::new();
    assert_eq!(flow.on_sent(Parse, Whose::Ours), Sent::Forward);
    send(&mut flow, &[Bind, Execute, Sync]);
    assert!(!flow.on_reply(b'1', None).unwrap().forward);
    hear(&mut flow, b"2CZ");

    flow.on_sent(Parse, Whose::Ours);
    send(&mut flow, &[Bind, Sync]);
    let reply = flow.on_reply(b'E', None).unwrap();
    assert!(reply.forward);
    let failed = reply.failed.unwrap();
    assert_eq!(failed.dropped, [Bind]);
    assert_eq!(failed.dropped_ours, [Parse]);
    hear(&mut flow, b"Z");

    flow.on_sent(Query, Whose::Ours);
    assert!(
        !flow.on_reply(b'E', None).unwrap().forward,
        "a query of our own"
    );
    assert!(!flow.on_reply(b'Z', Some(TxStatus::Idle)).unwrap().forward);
    assert!(flow.is_free());
}

#[test]
fn pitfall_46_notices_settings_and_notifications_answer_nothing() {
    let mut flow = Flow::new();
    hear(&mut flow, b"NSA");
    send(&mut flow, &[Query]);
    hear(&mut flow, b"NSACNSA");
    assert_eq!(flow.ready_owed(), 1);
}

#[test]
fn a_reply_that_nobody_asked_for_is_an_error() {
    let mut flow = Flow::new();
    assert_eq!(
        flow.on_reply(b'Z', Some(TxStatus::Idle)),
        Err(Unasked { tag: b'Z' })
    );
    send(&mut flow, &[Parse, Sync]);
    assert_eq!(flow.on_reply(b'D', None), Err(Unasked { tag: b'D' }));
    assert_eq!(
        flow.on_reply(b'Z', Some(TxStatus::Idle)),
        Err(Unasked { tag: b'Z' })
    );
}

#[test]
fn pitfall_22_a_timer_has_nothing_to_time_when_nothing_is_owed() {
    let mut flow = Flow::new();
    assert!(!flow.is_running());
    send(&mut flow, &[Query]);
    assert!(flow.is_running());
    hear(&mut flow, b"CZ");
    assert!(!flow.is_running());
}

#[test]
fn pitfall_43_a_copy_by_a_simple_query_is_over_with_ready() {
    let mut flow = Flow::new();
    send(&mut flow, &[Query]);
    hear(&mut flow, b"G");
    assert_eq!(
        flow.on_sent(Sync, Whose::Clients),
        Sent::Drop,
        "ignored among rows"
    );
    assert_eq!(flow.on_copy_end_sent(), Sent::Forward);
    hear(&mut flow, b"CZ");
    assert!(flow.is_free());
    send(&mut flow, &[Query]);
    hear(&mut flow, b"HddcCZ");
    assert!(flow.is_free());
}

#[test]
fn pitfall_43_a_copy_that_was_sent_ahead_counts_its_own_sync_only() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute]);
    assert_eq!(flow.on_copy_end_sent(), Sent::Forward);
    send(&mut flow, &[Sync]);
    hear(&mut flow, b"2GC");
    assert!(!flow.is_free());
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
}

#[test]
fn pitfall_43_a_sync_before_the_rows_is_a_part_of_the_copy() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute, Sync]);
    hear(&mut flow, b"2G");
    assert_eq!(flow.ready_owed(), 0, "the server ignores that Sync");
    assert_eq!(flow.on_copy_end_sent(), Sent::Forward);
    send(&mut flow, &[Sync]);
    hear(&mut flow, b"CZ");
    assert!(flow.is_free());
}

#[test]
fn pitfall_43_a_copy_that_fails_is_over_with_the_sync_behind_its_rows() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute, Sync]);
    hear(&mut flow, b"2G");
    assert!(
        failed(&mut flow).in_doubt,
        "the server may not have read the first Sync"
    );
    assert_eq!(flow.ready_owed(), 0, "and nobody sends it another one");
    assert_eq!(flow.on_copy_end_sent(), Sent::Drop);
    assert!(!flow.is_free());
    send(&mut flow, &[Sync]);
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
    assert!(flow.on_reply(b'Z', Some(TxStatus::Idle)).is_err(), "once");
}

#[test]
fn pitfall_43_a_sync_among_rows_is_for_the_server_to_ignore_or_to_answer() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute]);
    hear(&mut flow, b"2G");
    assert_eq!(flow.on_sent(Sync, Whose::Clients), Sent::Forward);
    assert!(failed(&mut flow).in_doubt);
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
}

#[test]
fn pitfall_43_a_copy_that_fails_before_its_rows_has_its_sync_answered() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute, Sync]);
    hear(&mut flow, b"2G");
    flow.on_reply(b'E', None).unwrap();
    let reply = flow.on_reply(b'Z', Some(TxStatus::Idle)).unwrap();
    assert!(
        reply.forward,
        "a view takes no rows, and its server has not read that far"
    );
    assert_eq!(flow.on_copy_end_sent(), Sent::Drop);
    send(&mut flow, &[Sync]);
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
}

#[test]
fn pitfall_43_an_end_of_rows_without_a_copy_is_ignored() {
    let mut flow = Flow::new();
    assert_eq!(flow.on_copy_end_sent(), Sent::Drop);
    send(&mut flow, &[Query]);
    assert_eq!(flow.on_copy_end_sent(), Sent::Forward);
    flow.on_reply(b'E', None).unwrap();
    ready(&mut flow, TxStatus::Idle);
    assert!(flow.is_free());
}

#[test]
fn pitfall_45_a_function_call_ends_with_ready() {
    let mut flow = Flow::new();
    send(&mut flow, &[FunctionCall]);
    hear(&mut flow, b"V");
    assert!(!flow.is_free());
    hear(&mut flow, b"Z");
    assert!(flow.is_free());
}

#[test]
fn a_lost_server_is_one_error_for_each_group_that_waits() {
    let mut flow = Flow::new();
    send(&mut flow, &[Parse, Bind, Execute, Sync, Query, Bind]);
    let told = flow.abandon();
    let (error, ready) = (Instead::Error, Instead::Ready);
    assert_eq!(told, [error, ready, error, ready, error]);
    assert_eq!(flow.on_sent(Execute, Whose::Local), Sent::Drop);
    assert_eq!(flow.on_sent(Sync, Whose::Local), Sent::Answer);
    assert!(flow.is_free());
}

#[test]
fn a_sync_that_would_have_committed_is_never_answered_as_if_it_had() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute, Sync]);
    hear(&mut flow, b"2C");
    assert_eq!(flow.abandon(), [Instead::Error, Instead::Ready]);
}

#[test]
fn an_error_that_was_told_is_not_told_twice() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute, Sync]);
    flow.on_reply(b'E', None).unwrap();
    assert_eq!(flow.abandon(), [Instead::Ready]);
    send(&mut flow, &[Bind]);
    flow.on_reply(b'E', None).unwrap();
    assert_eq!(flow.abandon(), []);
}

#[test]
fn a_group_that_is_open_with_all_answered_hears_nothing_unasked() {
    let mut flow = Flow::new();
    send(&mut flow, &[Bind, Execute]);
    hear(&mut flow, b"2C");
    assert!(flow.is_quiet_in_group());
    assert_eq!(
        flow.abandon(),
        [],
        "no driver takes an error that answers nothing"
    );
    assert!(flow.is_quiet_in_group() && !flow.is_free());
}

fn any_step() -> impl Strategy<Value = Step> {
    proptest::sample::select(vec![
        Parse,
        Bind,
        DescribeStatement,
        Execute,
        Close,
        Sync,
        Query,
        FunctionCall,
        CopyEnd,
    ])
}

/// A server that answers as the manual says, one message at a time; errors where `fails` says.
fn serve(steps: &[Step], fails: &[bool]) -> Vec<u8> {
    let (mut out, mut skipping) = (Vec::new(), false);
    for (step, fails) in steps.iter().zip(fails) {
        match (step, fails) {
            (Sync, _) => {
                skipping = false;
                out.extend(b"Z");
            }
            _ if skipping => (),
            (CopyEnd, _) => (),
            (Query | FunctionCall, true) => out.extend(b"EZ"),
            (_, true) => {
                skipping = true;
                out.extend(b"E");
            }
            (Query, _) => out.extend(b"TDCZ"),
            (FunctionCall, _) => out.extend(b"VZ"),
            (Parse, _) => out.extend(b"1"),
            (Bind, _) => out.extend(b"2"),
            (Close, _) => out.extend(b"3"),
            (DescribeStatement, _) => out.extend(b"tT"),
            (_, _) => out.extend(b"DC"),
        }
    }
    out
}

proptest! {
    /// Whatever is sent ahead, each reply has its place, and nothing is owed in the end.
    #[test]
    fn pitfall_16_every_pipeline_comes_out_even(
        steps in proptest::collection::vec((any_step(), proptest::bool::weighted(0.2)), 0..30),
    ) {
        let (mut steps, mut fails): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        steps.push(Sync);
        fails.push(false);
        let mut flow = Flow::new();
        for step in &steps {
            let sent = match step {
                CopyEnd => flow.on_copy_end_sent(),
                step => flow.on_sent(*step, Whose::Clients),
            };
            prop_assert!(*step == CopyEnd || sent == Sent::Forward);
        }
        for tag in serve(&steps, &fails) {
            prop_assert!(!flow.is_free(), "a reply is still to come");
            prop_assert!(flow.on_reply(tag, Some(TxStatus::Idle)).unwrap().forward);
        }
        prop_assert!(flow.is_free());
        prop_assert_eq!(flow.ready_owed(), 0);
    }

    /// Any message of a hostile server is taken or refused; a lost server answers every group.
    #[test]
    fn pitfall_38_any_reply_is_owed_or_unasked(
        steps in proptest::collection::vec(any_step(), 0..20),
        tags in proptest::collection::vec(
            proptest::sample::select(&b"ZZE123CITDdcGHWtnsVNSAx"[..]), 0..40),
    ) {
        let mut flow = Flow::new();
        for step in &steps {
            flow.on_sent(*step, Whose::Clients);
        }
        for tag in tags {
            if flow.on_reply(tag, Some(TxStatus::Idle)).is_err() {
                break;
            }
        }
        let owed = flow.ready_owed();
        let told = flow.abandon();
        let readies = told.iter().filter(|told| **told == Instead::Ready).count();
        prop_assert_eq!(readies, owed);
        prop_assert_eq!(flow.ready_owed(), 0);
    }

    #[test]
    fn what_only_passes_is_what_an_answer_would_have_made_of_it(
        steps in proptest::collection::vec((any_step(), 0..3usize), 0..20),
        tags in proptest::collection::vec(
            proptest::sample::select(&b"ZZE123CITDdcGHWtnsVNSAx"[..]), 0..40),
    ) {
        let mut flow = Flow::new();
        for (step, whose) in steps {
            flow.on_sent(step, [Whose::Clients, Whose::Ours, Whose::Local][whose]);
        }
        for tag in tags {
            let mut other = flow.clone();
            let status = (tag == b'Z').then_some(TxStatus::Idle);
            let passing = flow.on_passing(tag);
            let Ok(reply) = other.on_reply(tag, status) else {
                prop_assert_eq!(passing, None);
                break;
            };
            if let Some(forward) = passing {
                let bare = Reply { forward, done: reply.done, ..Reply::default() };
                prop_assert_eq!(&reply, &bare);
                let is_quiet = matches!(
                    reply.done,
                    None | Some(Step::Bind | Step::DescribeStatement | Step::DescribePortal)
                );
                prop_assert!(is_quiet);
                prop_assert_eq!(format!("{flow:?}"), format!("{other:?}"));
            }
            flow = other;
        }
    }
}
