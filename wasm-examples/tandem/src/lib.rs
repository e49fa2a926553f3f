//! A process of WASI 0.3 that waits for several things at once: its arguments are numbers of milliseconds, and it says of each when
//! it has passed, the shortest first. It fails if one is no number.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use wasip3::cli::{environment, stderr, stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::wit_bindgen::StreamWriter;
use wasip3::{spawn_local, wit_stream};

wasip3::cli::command::export!(Tandem);

struct Tandem;

impl wasip3::exports::cli::run::Guest for Tandem {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let times: Result<Vec<u64>, _> = arguments.iter().skip(1).map(|argument| argument.parse()).collect();
        let Ok(times) = times else {
            let (mut writer, complaint) = wit_stream::new();
            let printing = stderr::write_via_stream(complaint);
            writer.write_all(b"tandem: say numbers of milliseconds\n".to_vec()).await;
            drop(writer);
            let _ = printing.await;
            return Err(());
        };
        let (writer, printed) = wit_stream::new();
        let printing = stdout::write_via_stream(printed);
        let printer = Printer::new(writer);
        for time in times {
            let printer = printer.clone();
            spawn_local(async move {
                monotonic_clock::wait_for(time * 1_000_000).await;
                printer.print(format!("{time} ms have passed\n")).await;
            });
        }
        // The output ends with the last of them.
        drop(printer);
        printing.await.map_err(drop)
    }
}

/// Lets several tasks print, a line after the other. Clones are the same.
#[derive(Clone)]
struct Printer {
    writer: Rc<RefCell<Option<StreamWriter<u8>>>>,
    lines: Rc<RefCell<VecDeque<String>>>,
}

impl Printer {
    fn new(writer: StreamWriter<u8>) -> Self {
        Self { writer: Rc::new(RefCell::new(Some(writer))), lines: Rc::default() }
    }

    async fn print(&self, line: String) {
        self.lines.borrow_mut().push_back(line);
        // Whoever has the writer prints this line too.
        let taken = self.writer.borrow_mut().take();
        let Some(mut writer) = taken else { return };
        while let Some(line) = self.next() {
            writer.write_all(line.into_bytes()).await;
        }
        *self.writer.borrow_mut() = Some(writer);
    }

    fn next(&self) -> Option<String> {
        self.lines.borrow_mut().pop_front()
    }
}
