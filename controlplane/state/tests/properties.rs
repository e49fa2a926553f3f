//! What the state machine owes, for any commands in any order.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use shoal_state::limits::History;
use shoal_state::{Change, Command, ImageReader, Outcome, Precondition, Revision, State, Transaction, View, Write};

fn key() -> impl Strategy<Value = String> {
    (0..6u8).prop_map(|number| format!("/{}/{number}", ["a", "b"][usize::from(number % 2)]))
}

fn command() -> impl Strategy<Value = Command> {
    let precondition = prop_oneof![
        key().prop_map(Precondition::Absent),
        key().prop_map(Precondition::Exists),
        (key(), 0..30u64).prop_map(|(key, revision)| Precondition::ModifiedAt(key, Revision(revision))),
    ];
    let write = prop_oneof![
        3 => (key(), any::<[u8; 3]>()).prop_map(|(key, value)| Write::Put { key, value: Bytes::copy_from_slice(&value) }),
        1 => (key(), 1..9u64).prop_map(|(key, second)| Write::PutUntil {
            key,
            value: Bytes::from_static(b"short"),
            expires: second.try_into().expect("not zero"),
        }),
        1 => key().prop_map(|key| Write::Delete { key }),
    ];
    let transaction = (prop::collection::vec(precondition, 0..2), prop::collection::vec(write, 0..4))
        .prop_map(|(preconditions, writes)| Command::Transaction(Transaction { preconditions, writes }));
    let expire = (1..9u64).prop_map(|now| Command::Expire { now: now.try_into().expect("not zero") });
    prop_oneof![
        9 => transaction,
        1 => Just(Command::AllocateMember),
        1 => expire,
        1 => (0..3u32).prop_map(|level| Command::RaiseFeatureLevel { level }),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(command(), 0..40)
}

fn applied(commands: &[Command]) -> State {
    let mut state = State::new();
    for command in commands {
        state.apply(command.clone());
    }
    state
}

fn encoded(state: &State) -> Vec<Vec<u8>> {
    state.image().chunks().collect()
}

fn decoded(chunks: &[Vec<u8>]) -> State {
    let mut reader = ImageReader::default();
    for chunk in chunks {
        reader.take(chunk).expect("our own chunk");
    }
    reader.finish().expect("our own image").into()
}

fn contents(view: &View) -> BTreeMap<String, Bytes> {
    view.range("", None).map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
}

fn replay(contents: &mut BTreeMap<String, Bytes>, change: &Change) {
    assert_eq!(contents.get(&change.key), change.previous.as_ref());
    assert_eq!(change.created, change.previous.is_none());
    match &change.current {
        Some(value) => contents.insert(change.key.clone(), value.clone()),
        None => contents.remove(&change.key),
    };
}

proptest! {
    #[test]
    fn the_same_commands_give_the_same_bytes(commands in commands()) {
        prop_assert_eq!(encoded(&applied(&commands)), encoded(&applied(&commands)));
    }

    #[test]
    fn a_snapshot_and_the_rest_equal_the_whole(commands in commands(), cut in 0..40usize) {
        let cut = cut.min(commands.len());
        let mut restored = decoded(&encoded(&applied(&commands[..cut])));
        for command in &commands[cut..] {
            restored.apply(command.clone());
        }
        prop_assert_eq!(encoded(&restored), encoded(&applied(&commands)));
        prop_assert_eq!(restored.size(), applied(&commands).size());
    }

    #[test]
    fn a_watch_replayed_over_a_list_is_the_next_list(commands in commands(), cut in 0..40usize) {
        let cut = cut.min(commands.len());
        let before = applied(&commands[..cut]).view();
        let state = applied(&commands);
        let mut replayed = contents(&before);
        for change in state.changes_after(before.revision(), "").expect("nothing is compacted") {
            replay(&mut replayed, change);
        }
        prop_assert_eq!(replayed, contents(&state.view()));
    }

    #[test]
    fn looking_back_shows_what_was(commands in commands(), cut in 0..40usize) {
        let cut = cut.min(commands.len());
        let then = applied(&commands[..cut]).view();
        let back = applied(&commands).view_at(then.revision()).expect("nothing is compacted");
        prop_assert_eq!(contents(&back), contents(&then));
    }

    #[test]
    fn no_precondition_is_passed_over_and_revisions_only_grow(commands in commands()) {
        let mut state = State::new();
        for command in commands {
            let before = state.view();
            let held = match &command {
                Command::Transaction(transaction) => transaction.preconditions.iter().all(|precondition| {
                    let current = before.get(precondition.key());
                    match precondition {
                        Precondition::Absent(_) => current.is_none(),
                        Precondition::Exists(_) => current.is_some(),
                        Precondition::ModifiedAt(_, revision) => current.is_some_and(|entry| entry.modified == *revision),
                    }
                }),
                _ => true,
            };
            let is_expiry = matches!(command, Command::Expire { .. });
            let (outcome, changes) = state.apply(command);
            prop_assert_eq!(held, !matches!(outcome, Outcome::Failed { .. }));
            let grown = if is_expiry { changes.len() as u64 } else { u64::from(!changes.is_empty()) };
            prop_assert_eq!(state.revision().0, before.revision().0 + grown);
            let size: usize = state.view().range("", None).map(|(key, entry)| key.len() + entry.value.len()).sum();
            prop_assert_eq!(state.size(), size as u64);
            prop_assert!(held || contents(&state.view()) == contents(&before));
        }
    }
}

proptest! {
    #[test]
    fn what_has_a_time_goes_at_that_time_and_not_before(commands in commands(), now in 1..9u64) {
        let now = now.try_into().expect("not zero");
        let mut state = applied(&commands);
        let before = state.view();
        state.apply(Command::Expire { now });
        prop_assert!(!state.has_expired(now));
        for (key, entry) in before.range("", None) {
            let is_due = entry.expires.is_some_and(|expires| expires <= now);
            prop_assert_eq!(state.view().get(key).is_none(), is_due);
        }
    }
}

#[test]
fn a_write_without_a_time_makes_a_key_stay() {
    let mut state = State::new();
    for expires in [Some(5), Some(7), None] {
        let mut transaction = Transaction::default();
        match expires.and_then(std::num::NonZeroU64::new) {
            Some(expires) => transaction.put_until("/a", "x", expires),
            None => transaction.put("/a", "x"),
        };
        state.apply(Command::Transaction(transaction));
        let (_, changes) = state.apply(Command::Expire { now: 6.try_into().expect("not zero") });
        assert_eq!(changes.len(), usize::from(expires == Some(5)));
    }
    assert!(!state.has_expired(std::num::NonZeroU64::MAX));
}

#[test]
fn member_ids_are_never_answered_twice() {
    let mut state = State::new();
    let (first, _) = state.apply(Command::AllocateMember);
    let mut state = decoded(&encoded(&state));
    let (second, _) = state.apply(Command::AllocateMember);
    assert_eq!((first, second), (Outcome::Member(1), Outcome::Member(2)));
}

#[test]
fn a_value_above_the_limit_is_refused_by_name() {
    let mut state = State::new();
    let mut transaction = Transaction::default();
    transaction.put("/big", vec![0; shoal_state::limits::VALUE_BYTES + 1]);
    let (outcome, changes) = state.apply(Command::Transaction(transaction));
    assert!(matches!(outcome, Outcome::TooLarge(text) if text.contains("limit of 1572864")));
    assert!(changes.is_empty());
}

#[test]
fn history_is_bounded_and_says_how_far_back_it_goes() {
    let kept = History { changes: 50, ..History::default() };
    let mut state = State::new().keeping(kept);
    for number in 0..kept.changes + 10 {
        let mut transaction = Transaction::default();
        transaction.put("/a", number.to_string());
        state.apply(Command::Transaction(transaction));
    }
    assert_eq!(state.view().compacted(), Revision(10));
    assert!(state.changes_after(Revision(9), "").is_none());
    assert!(state.view_at(Revision(9)).is_none());
    assert_eq!(state.changes_after(Revision(10), "").map(Iterator::count), Some(kept.changes));
}
