/**
 * The text format of the dialogues in test/smtp/*.smtp, and its parser.
 *
 *   == A01 A02: a promise             begins a dialogue; the ids are rows of the attack catalogue
 *   on NODE                           which node of nodes.ts it talks to; `plain` without it
 *   oracle agrees | differs: WHY | none: WHY      what smtp-server does with it
 *   with NAME "text"                  a variable; ${T} is a token of this dialogue alone
 *   each NAME "text" "text" …         the dialogue runs once for each text
 *   include FILE                      the lines of FILE.part, before the lines that follow
 *   from ADDRESS                      source address of the connection
 *   # comment
 *
 *   C: line                           sent with CRLF
 *   C> "raw" "raw"*9 | "raw"          raw bytes; `|` begins a TCP segment; escapes \r \n \t \0 \xHH \" \\
 *   C. "raw"                          raw bytes, each a TCP segment of its own
 *   S: 250 text *                     one reply whose last line matches; `*` is any text, `?` one character
 *   S: 250-text                       a line of a reply before the last
 *   S~ 550|501 text *                 one of these codes
 *   S9: 250 text *                    the reply to come 9 times
 *   last PATTERN                      replies until one matches
 *   quiet 7                           nothing comes for 7 seconds
 *   offers "A" "B"                    the EHLO answer offered exactly these
 *   within 15                         seconds for each wait that follows (10 without it)
 *   closed | closed fin               nothing more came, and the other side ended the connection
 *   ended                             the other side ended it, whatever came before
 *   shut | reset | drop               FIN, RST, both directions at once
 *   connect [ADDRESS]                 a new connection in place of the old one
 *   others N [ADDRESS]                N more connections, open until the dialogue ends
 *   dials N                           N connections, each closed after its greeting
 *   message                           a whole message from MAIL to 250
 *   tls [1.2|1.3]                     TLS handshake now
 *   freeze inspectors                 SIGSTOP to the node's inspector processes
 *   alive                             a new connection gets a greeting: the node lives
 *   expect-mail N                     N messages with ${T} have arrived, and not one more
 *   expect-held N                     N messages with ${T} are held
 *   release                           releases what is held
 *   retry                             makes waiting mail due
 *   mail sender|recipient|contains|lacks|ends|top "text"    about each mail that arrived
 *   tried                             every recipient that waits has had an attempt that ended
 *   waiting ADDRESS …                 exactly these recipients wait
 */

export type Step = { readonly verb: string; readonly words: string; readonly line: number }

export type Dialogue = {
  readonly ids: readonly string[]
  readonly promise: string
  readonly node: string
  readonly oracle: { readonly kind: 'agrees' | 'differs' | 'none'; readonly why: string }
  readonly from: string | null
  readonly variables: ReadonlyMap<string, string>
  readonly steps: readonly Step[]
  /** `FILE:LINE` of its heading. */
  readonly where: string
}

/** @throws SyntaxError that names the line */
export function parseDialogues(
  file: string,
  text: string,
  readPart: (name: string) => string,
): Dialogue[] {
  const dialogues: Dialogue[] = []
  const blocks = text.split(/^(?=== )/m)
  let line = 1
  for (const block of blocks) {
    if (block.startsWith('== ')) dialogues.push(...parseBlock(file, block, line, readPart))
    else if (/^[^#\s]/m.test(block))
      throw new SyntaxError(`${file}:${line}: text before the first ==`)
    line += block.split('\n').length - 1
  }
  return dialogues
}

function parseBlock(
  file: string,
  block: string,
  first: number,
  readPart: (name: string) => string,
): Dialogue[] {
  const [heading = '', ...lines] = block.split('\n')
  const match = /^== ((?:[A-Z]\d\d ?)*): ?(.+)$/.exec(heading)
  if (match === null) throw new SyntaxError(`${file}:${first}: heading`)
  const ids = (match[1] ?? '').split(' ').filter((id) => id !== '')
  const variables = new Map<string, string>()
  let each: { name: string; values: string[] } = { name: '', values: [''] }
  let node = 'plain'
  let from: string | null = null
  let oracle: Dialogue['oracle'] = { kind: 'agrees', why: '' }
  const steps: Step[] = []
  const read = (source: readonly string[], offset: number): void => {
    for (const [at, text] of joinLines(source)) {
      const [, verb = '', words = ''] = /^(\S+)\s*(.*)$/s.exec(text) ?? []
      const line = offset + at
      if (verb === 'on') node = words
      else if (verb === 'from') from = words
      else if (verb === 'with') {
        const [, name = '', value = ''] = /^(\w+) (.*)$/s.exec(words) ?? []
        variables.set(name, value)
      } else if (verb === 'each') {
        const [, name = '', values = ''] = /^(\w+) (.*)$/s.exec(words) ?? []
        each = { name, values: values.match(/"(?:[^"\\]|\\.)*"(?:\*\d+)?/g) ?? [] }
      } else if (verb === 'oracle') {
        const [, kind = '', why = ''] = /^(agrees|differs|none)(?:: (.*))?$/.exec(words) ?? []
        if (kind === '' || (kind !== 'agrees' && why === ''))
          throw new SyntaxError(`${file}:${line}: oracle`)
        oracle = { kind: kind as Dialogue['oracle']['kind'], why }
      } else if (verb === 'include') {
        read(readPart(words).split('\n'), line)
      } else steps.push({ verb, words, line })
    }
  }
  read(lines, first + 1)
  return each.values.map((value) => ({
    ids,
    promise: `${match[2] ?? ''}${each.name === '' ? '' : ` ${value}`}`,
    node,
    oracle,
    from,
    variables: each.name === '' ? variables : new Map([...variables, [each.name, value]]),
    steps,
    where: `${file}:${first}`,
  }))
}

/** Lines without comments and blanks; a line that begins with a blank continues the one before. */
function joinLines(lines: readonly string[]): [number, string][] {
  const joined: [number, string][] = []
  for (const [at, text] of lines.entries()) {
    const last = joined.at(-1)
    if (/^\s*(#|$)/.test(text)) continue
    if (/^\s/.test(text) && last !== undefined) last[1] += ` ${text.trim()}`
    else joined.push([at, text.trimEnd()])
  }
  return joined
}

/** The bytes of quoted strings, in segments. @throws SyntaxError */
export function parseBytes(text: string, variables: ReadonlyMap<string, string>): Buffer[] {
  const segments: Buffer[][] = [[]]
  let rest = text.trim()
  while (rest !== '') {
    const quoted = /^"((?:[^"\\]|\\.)*)"(?:\*(\d+))?\s*/s.exec(rest)
    const named = /^\$\{(\w+)\}(?:\*(\d+))?\s*/.exec(rest)
    if (quoted !== null) {
      const [all, content = '', count = '1'] = quoted
      const piece = Buffer.from(unescapeText(substitute(content, variables)), 'latin1')
      for (let n = 0; n < Number(count); n += 1) segments.at(-1)?.push(piece)
      rest = rest.slice(all.length)
    } else if (named !== null) {
      const value = variables.get(named[1] ?? '')
      if (value === undefined) throw new SyntaxError(`no variable ${named[1]}`)
      const pieces = parseBytes(value, variables)
      for (let n = Number(named[2] ?? 1); n > 0; n -= 1) segments.at(-1)?.push(...pieces)
      rest = rest.slice(named[0].length)
    } else if (rest.startsWith('|')) {
      segments.push([])
      rest = rest.slice(1).trimStart()
    } else throw new SyntaxError(`not a quoted string: ${rest.slice(0, 40)}`)
  }
  return segments.map((pieces) => Buffer.concat(pieces))
}

/** Replaces `${NAME}`; a variable's own quotes fall away, so that it may stand inside others. */
export function substitute(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(/\$\{(\w+)\}/g, (_, name: string) => {
    const value = variables.get(name)
    if (value === undefined) throw new SyntaxError(`no variable ${name}`)
    const quoted = /^"(.*)"$/s.exec(value)
    return quoted === null ? value : substitute(quoted[1] ?? '', variables)
  })
}

function unescapeText(text: string): string {
  return text.replace(/\\(x[0-9a-fA-F]{2}|.)/gs, (_, code: string) => {
    if (code.startsWith('x') && code.length === 3)
      return String.fromCharCode(Number.parseInt(code.slice(1), 16))
    const known: Readonly<Record<string, string>> = { r: '\r', n: '\n', t: '\t', 0: '\0' }
    return known[code] ?? code
  })
}

/** True when `text` matches `pattern`, where `*` is any text and `?` any one character. */
export function matches(pattern: string, text: string): boolean {
  const source = pattern
    .split('*')
    .map((part) => part.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('?', '.'))
    .join('.*')
  return new RegExp(`^${source}$`, 's').test(text)
}
