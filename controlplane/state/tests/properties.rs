//! What the state machine owes, for any commands in any order.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use shoal_state::{Change, Command, Outcome, Precondition, Revision, State, Transaction, View, Write};

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
        1 => key().prop_map(|key| Write::Delete { key }),
    ];
    let transaction = (prop::collection::vec(precondition, 0..2), prop::collection::vec(write, 0..4))
        .prop_map(|(preconditions, writes)| Command::Transaction(Transaction { preconditions, writes }));
    prop_oneof![9 => transaction, 1 => Just(Command::AllocateMember)]
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
        prop_assert_eq!(applied(&commands).encode(), applied(&commands).encode());
    }

    #[test]
    fn a_snapshot_and_the_rest_equal_the_whole(commands in commands(), cut in 0..40usize) {
        let cut = cut.min(commands.len());
        let mut restored = State::decode(&applied(&commands[..cut]).encode()).expect("our own snapshot");
        for command in &commands[cut..] {
            restored.apply(command.clone());
        }
        prop_assert_eq!(restored.encode(), applied(&commands).encode());
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
                Command::AllocateMember => true,
            };
            let (outcome, changes) = state.apply(command);
            prop_assert_eq!(held, !matches!(outcome, Outcome::Failed { .. }));
            prop_assert_eq!(state.revision().0, before.revision().0 + u64::from(!changes.is_empty()));
            prop_assert!(held || contents(&state.view()) == contents(&before));
        }
    }
}

#[test]
fn member_ids_are_never_answered_twice() {
    let mut state = State::new();
    let (first, _) = state.apply(Command::AllocateMember);
    let mut state = State::decode(&state.encode()).expect("a snapshot");
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
    let mut state = State::new();
    for number in 0..shoal_state::limits::HISTORY_CHANGES + 10 {
        let mut transaction = Transaction::default();
        transaction.put("/a", number.to_string());
        state.apply(Command::Transaction(transaction));
    }
    assert_eq!(state.view().compacted(), Revision(10));
    assert!(state.changes_after(Revision(9), "").is_none());
    assert!(state.view_at(Revision(9)).is_none());
    assert_eq!(state.changes_after(Revision(10), "").map(Iterator::count), Some(shoal_state::limits::HISTORY_CHANGES));
}
