/** Tables as text: what a paste holds, and what is saved. */

const HEADINGS = new Set([
  "text",
  "texts",
  "message",
  "messages",
  "utterance",
  "query",
  "question",
  "sentence",
  "body",
  "comment",
  "review",
  "ticket",
]);
const FORMULA = ["=", "+", "-", "@", "\t", "\r"];

/**
 * The texts of a piece of a table: one column of a spreadsheet, or of a CSV or TSV file.
 *
 * Returns `{texts, taken}`, `taken` saying in words what was made of the paste, or null where it is
 * plain text.
 */
export function column(pasted) {
  const rows = tabular(pasted) ?? quoted(pasted);
  if (rows === null) return null;
  const heading =
    rows.length > 1 && rows[0].some((cell) => HEADINGS.has(cell.trim().toLowerCase()))
      ? rows[0]
      : null;
  const body = (heading === null ? rows : rows.slice(1)).filter((row) =>
    row.some((cell) => cell.trim()),
  );
  if (!body.length) return null;
  const at = textColumn(heading, body);
  const words = [];
  if (rows[0].length > 1)
    words.push(
      `column ${heading === null ? at + 1 : `“${heading[at].trim()}”`} of ${rows[0].length} was taken`,
    );
  else if (heading !== null) words.push(`the heading “${heading[at].trim()}” was left out`);
  else words.push("quotes were taken off");
  // A line is a text here, and models take white space of any kind alike.
  const texts = body.map((row) => row[at].replace(/\s*[\r\n]+\s*/g, " ").trim()).filter(Boolean);
  return { texts, taken: words.join(", ") };
}

/** Rows of cells apart by tabs, as spreadsheets copy them; CSV with a heading that we know. */
function tabular(pasted) {
  for (const delimiter of ["\t", ",", ";"]) {
    const rows = cells(pasted, delimiter);
    if (rows === null || rows.length < 2 || rows[0].length < 2) continue;
    if (rows.some((row) => row.length !== rows[0].length)) continue;
    // Commas stand in prose as well: only a heading says that they part columns.
    const isTable =
      delimiter === "\t" || rows[0].some((cell) => HEADINGS.has(cell.trim().toLowerCase()));
    if (isTable) return rows;
  }
  return null;
}

/** One column, where something in it is quoted or it has a heading. */
function quoted(pasted) {
  const lines = pasted.split(/\r\n|\r|\n/).filter((line) => line.trim());
  const headed =
    lines.length > 1 &&
    HEADINGS.has(
      lines[0]
        .trim()
        .replace(/^"(.*)"$/, "$1")
        .toLowerCase(),
    );
  if (!headed && !lines.some((line) => line.startsWith('"'))) return null;
  const rows = cells(pasted, "\n");
  if (rows === null) return headed ? lines.map((line) => [line]) : null;
  return rows.flat().map((cell) => [cell]);
}

/** Cells by row; null where quotes are not those of a table. */
function cells(source, delimiter) {
  const rows = [[]];
  let at = 0;
  while (at <= source.length) {
    let cell = "";
    if (source[at] === '"') {
      let end = at + 1;
      for (;;) {
        const quote = source.indexOf('"', end);
        if (quote < 0) return null;
        cell += source.slice(end, quote);
        end = quote + 1;
        if (source[end] !== '"') break;
        cell += '"';
        end += 1;
      }
      at = end;
      if (
        at < source.length &&
        source[at] !== delimiter &&
        source[at] !== "\n" &&
        source[at] !== "\r"
      )
        return null;
    } else {
      const start = at;
      while (
        at < source.length &&
        source[at] !== delimiter &&
        source[at] !== "\n" &&
        source[at] !== "\r"
      )
        at += 1;
      cell = source.slice(start, at);
    }
    rows.at(-1).push(cell);
    if (at >= source.length) break;
    if (source[at] === delimiter && delimiter !== "\n") at += 1;
    else {
      at += source.startsWith("\r\n", at) ? 2 : 1;
      rows.push([]);
    }
  }
  return rows.filter((row) => row.some((cell) => cell.trim()));
}

/** Where the texts are: under a heading that we know, else in the column with the longest cells. */
function textColumn(heading, body) {
  const named =
    heading === null ? -1 : heading.findIndex((cell) => HEADINGS.has(cell.trim().toLowerCase()));
  if (named >= 0) return named;
  const lengths = body[0].map((_, at) => body.reduce((sum, row) => sum + row[at].length, 0));
  return lengths.indexOf(Math.max(...lengths));
}

/** Rows as CSV; a cell that a spreadsheet would run is kept from it by an apostrophe. */
export function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const guarded = FORMULA.some((first) => text.replace(/^'+/, "").startsWith(first))
      ? `'${text}`
      : text;
    return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
