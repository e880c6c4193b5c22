//! The terminal while the demo shows itself: another screen, raw keys, and the way back on every path out, a panic in any
//! thread included. What to show is `view`'s business.

use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{cursor, queue};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::view::{Line, Size, Tone};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// What a terminal has that does not tell its size.
const USUAL: Size = Size { columns: 80, rows: 24 };
/// How soon the reader of keys sees that it is no longer needed.
const KEY_CHECK: Duration = Duration::from_millis(100);
const CTRL_C: u8 = 3;
const ESCAPE: u8 = 27;

/// Whether the terminal shows our screen. A static, because a panic in any thread must find it.
static SHOWN: AtomicBool = AtomicBool::new(false);

pub struct Screen {
    color: bool,
    keys: Option<JoinHandle<()>>,
    over: Shutdown,
}

impl Screen {
    /// Whether there is a terminal to show something on.
    pub fn possible() -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        io::stdout().is_terminal() && !dumb
    }

    /// `q` and Ctrl-C pull the switch.
    pub fn enter(quit: &Shutdown) -> io::Result<Screen> {
        leave_on_panic();
        telemetry::hold();
        SHOWN.store(true, Ordering::SeqCst);
        let over = Shutdown::new();
        // From here on, dropping it restores the terminal.
        let mut screen = Screen { color: colorful(), keys: None, over: over.clone() };
        // Without a keyboard the terminal keeps making signals of Ctrl-C.
        if io::stdin().is_terminal() {
            terminal::enable_raw_mode()?;
            let quit = quit.clone();
            screen.keys = Some(std::thread::Builder::new().name("keys".into()).spawn(move || keys(&quit, &over))?);
        }
        let mut out = io::stdout().lock();
        queue!(out, EnterAlternateScreen, cursor::Hide, DisableLineWrap, Clear(ClearType::All))?;
        out.flush()?;
        Ok(screen)
    }

    /// Asked each time: this is how a resize is noticed.
    pub fn size(&self) -> Size {
        match terminal::size() {
            Ok((columns, rows)) if columns > 0 && rows > 0 => Size { columns: columns.into(), rows: rows.into() },
            _ => USUAL,
        }
    }

    pub fn show(&self, lines: &[Line], size: Size) -> io::Result<()> {
        let out = io::stdout().lock();
        // A panic elsewhere has left the screen: what is on the terminal now is to be read.
        if !SHOWN.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut out = BufWriter::new(out);
        paint(&mut out, lines, size.rows, self.color)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.over.pull();
        if let Some(keys) = self.keys.take() {
            let _ = keys.join();
        }
        leave();
    }
}

/// https://no-color.org
fn colorful() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

fn leave_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
    });
}

/// Once for each time it was entered. Nothing can be done about a terminal that is gone.
fn leave() {
    let mut out = io::stdout().lock();
    if SHOWN.swap(false, Ordering::SeqCst) {
        let _ = queue!(out, EndSynchronizedUpdate, ResetColor, EnableLineWrap, cursor::Show, LeaveAlternateScreen);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
        telemetry::release();
    }
}

/// A whole frame, over what was there.
fn paint(out: &mut impl Write, lines: &[Line], rows: usize, color: bool) -> io::Result<()> {
    queue!(out, BeginSynchronizedUpdate)?;
    for row in 0..rows {
        queue!(out, cursor::MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)))?;
        for (tone, text) in lines.get(row).into_iter().flat_map(|line| &line.0) {
            if color {
                put_on(out, *tone)?;
            }
            queue!(out, Print(text))?;
            if color {
                queue!(out, SetAttribute(Attribute::Reset))?;
            }
        }
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, EndSynchronizedUpdate)
}

fn put_on(out: &mut impl Write, tone: Tone) -> io::Result<()> {
    match tone {
        Tone::Plain => Ok(()),
        Tone::Strong => queue!(out, SetAttribute(Attribute::Bold)),
        Tone::Faint => queue!(out, SetAttribute(Attribute::Dim)),
        Tone::Good => queue!(out, SetForegroundColor(Color::Green)),
        Tone::Warning => queue!(out, SetForegroundColor(Color::Yellow)),
        Tone::Alarm => queue!(out, SetAttribute(Attribute::Bold), SetForegroundColor(Color::Red)),
    }
}

/// Waits for `q` or Ctrl-C, which in raw mode is a key like others. A keyboard that cannot be waited for, or is gone, ends
/// this and nothing else.
fn keys(quit: &Shutdown, over: &Shutdown) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        #[expect(deprecated, reason = "unsound where the descriptor may close meanwhile; nothing closes stdin here")]
        let Ok(stdin) = AsyncFd::with_interest(io::stdin(), Interest::READABLE) else { return };
        while !over.pulled() {
            let Ok(ready) = tokio::time::timeout(KEY_CHECK, stdin.readable()).await else { continue };
            let Ok(mut ready) = ready else { return };
            let mut typed = [0; 64];
            // Something is there, so this does not block.
            match stdin.get_ref().lock().read(&mut typed) {
                Ok(0) | Err(_) => return,
                Ok(n) if ends(&typed[..n]) => return quit.pull(),
                Ok(_) => ready.clear_ready(),
            }
        }
    });
}

/// Arrow keys and the like are sequences that begin with an escape; a letter in one is not that letter.
fn ends(typed: &[u8]) -> bool {
    typed.contains(&CTRL_C) || (typed.first() != Some(&ESCAPE) && typed.iter().any(|key| matches!(key, b'q' | b'Q')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_one_before_and_has_no_colors_when_none_are_wanted() {
        let line = |text: &str| Line(vec![(Tone::Alarm, text.to_owned())]);
        let painted = |color| {
            let mut out = Vec::new();
            paint(&mut out, &[line("one"), line("two")], 3, color).unwrap();
            String::from_utf8(out).unwrap()
        };
        let plain = painted(false);
        assert_eq!(plain, "\x1b[?2026h\x1b[1;1Hone\x1b[K\x1b[2;1Htwo\x1b[K\x1b[3;1H\x1b[K\x1b[?2026l");
        assert!(painted(true).contains("\x1b[1m"));
    }

    /// Enters the screen and panics in another thread. Not a test: what the next one runs within a terminal.
    #[test]
    #[ignore = "needs a terminal; run by the test below"]
    fn panics_within() {
        let screen = Screen::enter(&Shutdown::new()).unwrap();
        let size = screen.size();
        screen.show(&[Line(vec![(Tone::Plain, "before".to_owned())])], size).unwrap();
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        screen.show(&[Line(vec![(Tone::Plain, "after".to_owned())])], size).unwrap();
        drop(screen);
    }

    #[test]
    fn a_panic_in_any_thread_gives_the_terminal_back_before_it_speaks() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py");
        let output = std::process::Command::new("python3")
            .args([script, "80x24", "[]", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "demo::screen::tests::panics_within", "--ignored", "--nocapture"])
            .output()
            .expect("python3 is there");
        let (said, state) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}\n{state}");
        let at = |part: &str| said.find(part).unwrap_or_else(|| panic!("expected {part:?} in {said:?}"));
        assert!(at("\x1b[?1049h") < at("before") && at("before") < at("\x1b[?1049l"), "{said:?}");
        assert!(at("\x1b[?25h") < at("on purpose") && at("\x1b[?1049l") < at("on purpose"), "{said:?}");
        assert!(!said.contains("after"), "{said:?}");
        assert_eq!(said.matches("\x1b[?1049l").count(), 1, "{said:?}");
        assert!(state.contains("cooked"), "{state}");
    }

    #[test]
    fn q_and_ctrl_c_end_it_and_arrow_keys_do_not() {
        for (typed, expected) in [("q", true), ("aQ", true), ("\x03", true), ("\x1b[q", false), ("x", false)] {
            assert_eq!(ends(typed.as_bytes()), expected, "{typed:?}");
        }
    }
}
