//! A disk that fails at a chosen operation and then loses or tears what was not synced.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::StdRng;

use crate::{Disk, OsDisk};

/// What a power loss may undo.
#[derive(Debug)]
enum Unsynced {
    Content(PathBuf),
    Entry(PathBuf),
    Rename(PathBuf, PathBuf),
    /// Where the folder went, and where it was.
    Removal(PathBuf, PathBuf),
}

#[derive(Default)]
pub struct Power {
    /// Operations until everything fails; `None`: never.
    fuse: Option<u32>,
    /// Syncs are not carried out.
    pub deaf: bool,
    unsynced: Vec<Unsynced>,
    removals: u32,
}

#[derive(Clone, Default)]
pub struct FlakyDisk(pub Arc<Mutex<Power>>);

impl FlakyDisk {
    fn step(&self) -> io::Result<()> {
        match &mut self.0.lock().unwrap().fuse {
            Some(0) => Err(io::Error::new(io::ErrorKind::StorageFull, "the fuse has blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn note(&self, what: Unsynced) {
        self.0.lock().unwrap().unsynced.push(what);
    }

    /// Synced: no longer at risk.
    fn forget(&self, synced: impl Fn(&Unsynced) -> bool) {
        let mut power = self.0.lock().unwrap();
        if !power.deaf {
            power.unsynced.retain(|what| !synced(what));
        }
    }

    pub fn set_fuse(&self, fuse: Option<u32>) {
        self.0.lock().unwrap().fuse = fuse;
    }

    /// Undoes a random part of what was not synced, latest first.
    pub fn lose_power(&self, rng: &mut StdRng) {
        let unsynced = std::mem::take(&mut self.0.lock().unwrap().unsynced);
        let graves: Vec<PathBuf> = unsynced.iter().filter_map(Unsynced::grave).collect();
        for what in unsynced.into_iter().rev() {
            if rng.random() {
                continue;
            }
            match what {
                Unsynced::Content(path) if path.exists() => {
                    let bytes = fs::read(&path).unwrap();
                    let kept = rng.random_range(0..=bytes.len());
                    fs::write(&path, &bytes[..kept]).unwrap();
                }
                Unsynced::Entry(path) if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
                Unsynced::Entry(path) if path.exists() => fs::remove_file(&path).unwrap(),
                Unsynced::Rename(from, to) if to.exists() => fs::rename(&to, &from).unwrap(),
                Unsynced::Removal(grave, path)
                    if grave.exists() && !path.exists() && path.parent().unwrap().exists() =>
                {
                    // A part of what was in it may be gone.
                    for file in crate::files::tree(&grave).unwrap() {
                        if rng.random_ratio(1, 4) {
                            fs::remove_file(grave.join(file)).unwrap();
                        }
                    }
                    fs::rename(&grave, &path).unwrap();
                }
                _ => {}
            }
        }
        for grave in graves.iter().filter(|grave| grave.exists()) {
            fs::remove_dir_all(grave).unwrap();
        }
    }
}

impl Unsynced {
    fn grave(&self) -> Option<PathBuf> {
        match self {
            Unsynced::Removal(grave, _) => Some(grave.clone()),
            _ => None,
        }
    }
}

impl Disk for FlakyDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let new: Vec<_> = path.ancestors().take_while(|p| !p.exists()).map(Path::to_owned).collect();
        new.into_iter().rev().for_each(|path| self.note(Unsynced::Entry(path)));
        OsDisk.create_dir_all(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.note(Unsynced::Entry(path.to_owned()));
        self.note(Unsynced::Content(path.to_owned()));
        OsDisk.write(path, bytes)?;
        self.step()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write + Send>> {
        self.step()?;
        self.note(Unsynced::Entry(path.to_owned()));
        self.note(Unsynced::Content(path.to_owned()));
        OsDisk.create(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.forget(|what| matches!(what, Unsynced::Content(p) if p == path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let inside = |what: &Unsynced| match what {
            Unsynced::Entry(p) | Unsynced::Rename(_, p) | Unsynced::Removal(_, p) => p.parent() == Some(path),
            Unsynced::Content(_) => false,
        };
        self.forget(inside);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.rename(from, to)?;
        let mut power = self.0.lock().unwrap();
        for what in &mut power.unsynced {
            if let Unsynced::Content(path) | Unsynced::Entry(path) = what
                && let Ok(rest) = path.strip_prefix(from)
            {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
        power.unsynced.push(Unsynced::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::metadata(path)?;
        let mut power = self.0.lock().unwrap();
        power.removals += 1;
        // Beside the data directory, whose own listing must not see it.
        let root = path.ancestors().find(|path| path.ends_with("segments")).and_then(Path::parent).unwrap();
        let graves = root.with_extension("graves");
        fs::create_dir_all(&graves)?;
        let grave = graves.join(power.removals.to_string());
        fs::rename(path, &grave)?;
        let inside = |what: &Unsynced| match what {
            Unsynced::Content(p) | Unsynced::Entry(p) | Unsynced::Rename(_, p) | Unsynced::Removal(_, p) => {
                p.starts_with(path)
            }
        };
        power.unsynced.retain(|what| !inside(what));
        power.unsynced.push(Unsynced::Removal(grave, path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        OsDisk.list(path)
    }

    fn point(&self, _: &str) -> io::Result<()> {
        self.step()
    }
}
