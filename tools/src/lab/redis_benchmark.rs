//! What `redis-benchmark --csv` prints.

/// What it measured of one kind of request.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The kind.
    pub request: String,
    /// Requests per second.
    pub rate: f64,
    /// Median of the response time, ms.
    pub p50: f64,
    /// 99th percentile of the response time, ms.
    pub p99: f64,
}

impl Measured {
    /// The rows of its table.
    #[must_use]
    pub fn rows(printed: &str) -> Vec<Measured> {
        printed.lines().filter_map(Measured::of).collect()
    }

    /// A row: `"SET","12345.67",...`; the header's second column is no number.
    fn of(line: &str) -> Option<Measured> {
        let columns: Vec<&str> = line.split(',').map(|column| column.trim_matches('"')).collect();
        // test, rps, avg, min, p50, p95, p99, max
        let [request, rate, _, _, p50, _, p99, _] = columns[..] else {
            return None;
        };
        let number = |text: &str| text.parse::<f64>().ok();
        Some(Measured {
            request: request.to_owned(),
            rate: number(rate)?,
            p50: number(p50)?,
            p99: number(p99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_rows_and_a_header() {
        let printed = r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","43290.04","0.610","0.136","0.591","0.951","1.463","2.551"
"#;
        let set = Measured { request: "SET".to_owned(), rate: 43290.04, p50: 0.591, p99: 1.463 };
        assert_eq!(Measured::rows(printed), [set]);
        assert_eq!(Measured::rows("Could not connect to Redis"), []);
    }
}
