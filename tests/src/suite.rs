//! Runs cases one after another, says how each went, and ends with a line that counts them.

use std::time::Instant;

/// A case: a sentence, and the code that shows that it holds.
pub struct Case<C> {
    /// What holds.
    pub name: &'static str,
    /// The code.
    pub run: fn(&mut C) -> anyhow::Result<()>,
}

/// Makes a [`Case`] named for its function.
#[macro_export]
macro_rules! case {
    ($module:ident :: $function:ident) => {
        $crate::suite::Case { name: stringify!($function), run: $module::$function }
    };
}

/// Runs the cases whose name contains one of `filters` (all of them without filters) in their order on `context`; a case
/// that fails does not stop the next one. Prints the outcome in the form of cargo's own tests; answers how many failed.
#[expect(clippy::print_stdout, reason = "a test runner talks to the person who runs it")]
pub fn run<C>(context: &mut C, cases: &[Case<C>], filters: &[String], explain: impl Fn(&C)) -> usize {
    let wanted =
        |case: &&Case<C>| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str()));
    let mut failures = Vec::new();
    let mut passed = 0;
    let start = Instant::now();
    for case in cases.iter().filter(wanted) {
        let begun = Instant::now();
        let outcome = (case.run)(context);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", case.name);
            }
            Err(error) => {
                println!("test {} ... FAILED ({seconds:.1} s)\n{error:?}\n", case.name);
                failures.push(case.name);
            }
        }
    }
    if !failures.is_empty() {
        explain(context);
        println!("\nfailures:\n    {}", failures.join("\n    "));
    }
    let outcome = if failures.is_empty() { "ok" } else { "FAILED" };
    let left_out = cases.len() - passed - failures.len();
    println!(
        "\ntest result: {outcome}. {passed} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    failures.len()
}
