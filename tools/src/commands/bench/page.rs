//! The report as one page that needs nothing else.

use std::fmt::Write;

use super::{plots, results::Results, tables::Table};
use crate::svg::escape;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,'DejaVu Sans',sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:#1f2328;background:#ffffff}\
h1{font-size:1.7em}h2{margin-top:2em;border-bottom:1px solid #8884}p.note{color:#59636e;max-width:52em}\
.charts{display:flex;flex-wrap:wrap;gap:12px}svg{max-width:100%;height:auto}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}\
th,td{padding:4px 10px;border-bottom:1px solid #8884;text-align:right;white-space:nowrap}\
th{vertical-align:bottom;white-space:normal}th.name,td.name{text-align:left}\
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}p.note{color:#9da7b3}}";

/// The page: what to see first, then the tables and charts of each link.
pub(super) fn page(results: &Results, tables: &[Table], facts: &[String]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What protection costs</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>What protection costs</h1>\n"
    );
    for fact in facts {
        add(&mut page, format_args!("<p class=\"note\">{}</p>", escape(fact)));
    }
    page.push_str(&plots::first(results));
    for table in tables {
        add_table(&mut page, table);
    }
    add_charts(&mut page, "Charts, all links", &plots::of_all_links(results));
    for link in results.links() {
        add_charts(&mut page, &format!("Charts, {link}"), &plots::of_link(results, link));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn add_charts(page: &mut String, title: &str, charts: &[String]) {
    if !charts.is_empty() {
        add(
            page,
            format_args!("<h2>{}</h2>\n<div class=\"charts\">\n{}</div>", escape(title), charts.concat()),
        );
    }
}

fn add_table(page: &mut String, table: &Table) {
    let Table { title, note, columns, names, rows } = table;
    add(page, format_args!("<h2>{}</h2>\n<p class=\"note\">{}</p>", escape(title), escape(note)));
    page.push_str("<div class=\"wide\"><table>\n<tr>");
    let class = |column: usize| if column < *names { " class=\"name\"" } else { "" };
    for (column, name) in columns.iter().enumerate() {
        add(page, format_args!("<th{}>{}</th>", class(column), escape(name)));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            add(page, format_args!("<td{}>{}</td>", class(column), escape(cell)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn add(page: &mut String, text: std::fmt::Arguments) {
    // A string takes everything.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::{policy::Policy, results::tests::row, tables::tables, workload::Workload};

    #[test]
    fn a_page_has_everything_in_it() {
        let mut results = Results::default();
        for policy in [Policy::Unprotected, Policy::Replay] {
            results.push(row(policy, Workload::Rate, 1, 1000));
        }
        let page = page(&results, &tables(&results), &["2 processors & 1 < 2".to_owned()]);
        for part in
            ["<td class=\"name\">replay</td>", "2 processors &amp; 1 &lt; 2", "<h2>Memory, ", "</html>"]
        {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "").contains("http");
        assert!(!elsewhere && !page.contains("src="), "it needs something else");
    }
}
