//! What was measured, as a table that people and Markdown read.

/// Lines of a table.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String)>,
}

impl Report {
    /// Adds a line, and shows it at once: the whole takes a while.
    pub fn add(&mut self, what: impl Into<String>, value: impl Into<String>) {
        let (what, value) = (what.into(), value.into());
        eprintln!("  {what}: {value}");
        self.rows.push((what, value));
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "a benchmark talks to the person who runs it")]
    pub fn print(&self) {
        let width = self.rows.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
        println!("\n| {:width$} | measured |\n|{}|---|", "what", "-".repeat(width + 2));
        for (what, value) in &self.rows {
            println!("| {what:width$} | {value} |");
        }
    }
}

/// Durations of one kind of work, in milliseconds.
pub struct Times(Vec<f64>);

impl Times {
    /// Of these.
    pub fn new(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    /// The time that this share of them (0 to 1) does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// Both that matter.
    pub fn text(&self) -> String {
        format!("p50 {:.1} ms, p99 {:.1} ms", self.quantile(0.5), self.quantile(0.99))
    }
}
