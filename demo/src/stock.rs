//! How much paper there is: a list of the supplier's, read now and then by a task that nobody awaits. `error` lives here.

use std::num::ParseIntError;

use tokio::runtime::Handle;

/// Sort and reams.
const LIST: &str = "glossy-a4;120\nmatt-a4;80\ncanvas;7";
/// The supplier has begun to write what it counts.
const NEW_LIST: &str = "glossy-a4;120 reams\nmatt-a4;80 reams\ncanvas;7 rolls";

pub(crate) struct Stock {
    runtime: Handle,
}

impl Stock {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { runtime: Handle::current() }
    }

    /// Nobody awaits it, so that nobody sees its error: that is the bug.
    pub(crate) fn read_new_list(&self) {
        let _entered = self.runtime.enter();
        drop(taskscope_probe::spawn_try("stock-sync", async { reams(NEW_LIST) }));
    }

    /// What the shop is left with is the list of before.
    pub(crate) fn read_list(&self) {
        let _entered = self.runtime.enter();
        drop(taskscope_probe::spawn_try("stock-sync", async { reams(LIST) }));
    }
}

fn reams(list: &str) -> Result<u32, String> {
    let mut sum = 0;
    for (line, text) in (1..).zip(list.lines()) {
        let count = text.split(';').nth(1).unwrap_or_default();
        sum += count
            .parse::<u32>()
            .map_err(|error: ParseIntError| format!("line {line} of the stock list, `{text}`: {error}"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_units_is_refused_with_its_line() {
        assert_eq!(reams(LIST), Ok(207));
        assert_eq!(
            reams(NEW_LIST),
            Err("line 1 of the stock list, `glossy-a4;120 reams`: invalid digit found in string".to_owned())
        );
    }
}
