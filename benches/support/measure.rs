//! What a run cost: CPU seconds of process trees and peak memory, from /proc.

use std::fs;

/// Clock ticks a second of /proc (USER_HZ, 100 on every Linux).
const TICKS: f64 = 100.0;

/// CPU seconds of a process alone.
pub fn cpu_of(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |(_, own, _)| own)
}

/// CPU seconds of a server: the postmaster, its children that live, and those that have ended.
pub fn cpu_of_server(postmaster: u32) -> f64 {
    let mut sum = stat(postmaster).map_or(0.0, |(_, own, ended)| own + ended);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some((parent, own, ended)) = stat(pid)
            && parent == postmaster
        {
            sum += own + ended;
        }
    }
    sum
}

/// Peak of the resident memory of a process, in MB.
pub fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<f64>()
                .ok()
        })
        .map_or(0.0, |kb| kb / 1024.0)
}

/// Parent, CPU seconds, CPU seconds of children that have ended.
fn stat(pid: u32) -> Option<(u32, f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: what follows the last bracket is numbers.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let parent = fields.get(1)?.parse().ok()?;
    Some((
        parent,
        (ticks(11)? + ticks(12)?) / TICKS,
        (ticks(13)? + ticks(14)?) / TICKS,
    ))
}
