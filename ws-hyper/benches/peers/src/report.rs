//! The table.

use std::fmt;

use crate::{
    Sample, Server,
    measure::{Speed, Unit},
};

/// All samples of all rounds.
#[derive(Default)]
pub struct Report {
    /// In the order of the first round.
    cells: Vec<Cell>,
    failures: Vec<String>,
}

/// One server in one row of scenarios.
struct Cell {
    row: String,
    server: Server,
    unit: Unit,
    costs: Vec<f64>,
    speeds: Vec<Speed>,
}

impl Report {
    pub fn add(&mut self, server: Server, samples: Vec<Sample>) {
        for sample in samples {
            let cell = self.cell(sample.row, server, sample.unit);
            cell.costs.push(sample.cost);
            cell.speeds.extend(sample.speed);
        }
    }

    pub fn fail(&mut self, failure: String) {
        self.failures.push(failure);
    }

    pub fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    fn cell(&mut self, row: String, server: Server, unit: Unit) -> &mut Cell {
        let known = |cell: &Cell| cell.server == server && cell.row == row;
        let index = self.cells.iter().position(known).unwrap_or_else(|| {
            self.cells.push(Cell {
                row,
                server,
                unit,
                costs: Vec::new(),
                speeds: Vec::new(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }

    /// The cost in this row that all others are compared with.
    fn base(&self, row: &str) -> Option<f64> {
        let of = |names: &[&str]| {
            let mut cells = self.cells.iter();
            cells.find(|cell| cell.row == row && names.contains(&cell.server.name()))
        };
        of(&["ours", "ours-hub", "ours-tls", "ours-http2"])
            .or_else(|| of(&["raw", "raw-fanout"]))
            .map(|cell| median(&cell.costs))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !rows.contains(&cell.row.as_str()) {
                rows.push(&cell.row);
            }
        }
        writeln!(
            out,
            "{:<27}{:<28}{:>10}  {:>21}{:>8}{:>8}{:>13}{:>7}{:>9}",
            "scenario",
            "server",
            "median",
            "least .. greatest",
            "ratio",
            "back",
            "per second",
            "busy",
            "held up"
        )?;
        for row in rows {
            writeln!(out)?;
            let mut cells: Vec<&Cell> = self.cells.iter().filter(|cell| cell.row == row).collect();
            cells.sort_by(|left, right| median(&left.costs).total_cmp(&median(&right.costs)));
            let base = self.base(row);
            for cell in cells {
                cell.write(out, base)?;
            }
        }
        writeln!(
            out,
            "\nns: CPU time for each message, delivery, handshake or topic; B: resident bytes for each \
             connection or topic, or bytes on the wire for each message; KiB: resident memory; µs: time until a message is there; back: bytes on \
             the wire for each message, before TLS and HTTP/2"
        )?;
        for failure in &self.failures {
            writeln!(out, "failed: {failure}")?;
        }
        Ok(())
    }
}

impl Cell {
    fn write(&self, out: &mut fmt::Formatter<'_>, base: Option<f64>) -> fmt::Result {
        let unit = self.unit.name();
        let cost = median(&self.costs);
        let least = self.costs.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = format!("{} .. {}", grouped(least), grouped(greatest));
        write!(out, "{:<27}{:<28}", self.row, self.server.name())?;
        write!(out, "{:>10} {unit:<3}{range:>20}", grouped(cost))?;
        match base {
            Some(base) if base > 0.0 => write!(out, "{:>8.2}", cost / base)?,
            _ => write!(out, "{:>8}", "-")?,
        }
        if !self.speeds.is_empty() {
            let of = |fact: fn(&Speed) -> f64| {
                let facts: Vec<f64> = self.speeds.iter().map(fact).collect();
                median(&facts)
            };
            let speed = grouped(of(|speed| speed.messages_per_second));
            let (busy, held_up) = (of(|speed| speed.busy), of(|speed| speed.held_up));
            write!(
                out,
                "{:>8}{speed:>13}{:>5.0} %{:>7.0} %",
                grouped(of(|speed| speed.bytes_back)),
                busy * 100.0,
                held_up * 100.0
            )?;
        }
        writeln!(out)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

/// A number without decimals, its thousands set apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value <= -0.5 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
