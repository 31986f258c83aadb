/**
 * Rules of the operator that look at the mail: header, body, link, raw, map. Composites come
 * later, over what all inspectors said (decide/outcome).
 */
import type { RE2JS } from 're2js'
import { NetworkIndex } from '../../config/networks.ts'
import { compilePattern, type Detection, type MapSubject, type Rule } from '../../config/rules.ts'
import { addressesIn, parseAddress } from '../../message/address.ts'
import { digestOf } from '../../message/digest.ts'
import { decodeText, fieldValues, plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import { folded, type Needed, neededBy } from './literals.ts'
import type { Inspector, Look } from './look.ts'
import { viewOf } from './view.ts'

/** Characters that one pattern is run over: what a reader sees first. */
const TEXT_MAX = 65_536
/** Characters that all patterns together are run over; a pattern whose words are missing costs none. */
const CHARS_MAX = 524_288
/** Files whose hash is looked up. */
const FILES_MAX = 50

export const rules: Inspector = {
  name: 'rules',
  inspect: (look) => {
    const { detection } = look.config
    if (detection.rules.length === 0) return []
    if (last?.detection !== detection) last = prepare(detection)
    return new Run(look).over(last.rules)
  },
}

type Prepared = {
  readonly rule: Rule
  readonly pattern: RE2JS | null
  readonly needed: Needed
  /** Entries of its map. */
  readonly entries: ReadonlySet<string>
  readonly networks: NetworkIndex
}

/** Of the last configuration: one is in force at a time. */
let last: { readonly detection: Detection; readonly rules: readonly Prepared[] } | null = null

function prepare(detection: Detection): NonNullable<typeof last> {
  const prepared = detection.rules.flatMap((rule): Prepared[] => {
    const { look } = rule
    if (!rule.on || look.kind === 'composite') return []
    if (look.kind === 'map') {
      const entries = detection.maps[look.map] ?? []
      const networks = new NetworkIndex(look.of === 'client' ? entries : [])
      return [{ rule, pattern: null, needed: null, entries: new Set(entries), networks }]
    }
    const { pattern } = look
    return [
      {
        rule,
        pattern: compilePattern(pattern),
        needed: neededBy(pattern),
        entries: new Set(),
        networks: new NetworkIndex([]),
      },
    ]
  })
  return { detection, rules: prepared }
}

/** A text, and how it is looked through for words. */
type Text = { readonly text: string; readonly lower: string }

class Run {
  readonly #look: Look
  readonly #texts = new Map<string, readonly Text[]>()
  #left = CHARS_MAX
  #skipped = 0

  constructor(look: Look) {
    this.#look = look
  }

  over(prepared: readonly Prepared[]): readonly Finding[] {
    const findings: Finding[] = []
    for (const each of prepared) {
      const what = this.#find(each)
      if (what === null) continue
      const { name, score, describe } = each.rule
      const evidence = describe === '' ? what : `${describe} ${what}`
      findings.push({ rule: name, score, evidence })
    }
    if (this.#skipped > 0) {
      findings.push({
        rule: 'RULES_LIMIT',
        score: 0,
        evidence: `${this.#skipped} rules of the operator were not run to their end: the mail is long and they are many.`,
      })
    }
    return findings
  }

  /** What was found, a whole sentence. */
  #find(prepared: Prepared): string | null {
    const { look } = prepared.rule
    switch (look.kind) {
      case 'header':
        return this.#match(prepared, this.#header(look.field), `The field ${look.field}`)
      case 'body':
        return this.#match(
          prepared,
          this.#once('body', () => [this.#body()]),
          'The text',
        )
      case 'link':
        return this.#match(
          prepared,
          this.#once('link', () => this.#links()),
          'A link',
        )
      case 'raw':
        return this.#match(
          prepared,
          this.#once('raw', () => [this.#raw()]),
          'The mail',
        )
      case 'map': {
        const entry = this.#lookUp(prepared, look.of)
        return entry === null
          ? null
          : `${SUBJECTS[look.of]} is in the map ${look.map}, by the entry ${plainLine(entry, 100)}.`
      }
      case 'composite':
        return null
    }
  }

  #match({ pattern, needed }: Prepared, texts: readonly Text[], where: string): string | null {
    for (const { text, lower } of texts) {
      if (needed !== null && !needed.some((word) => lower.includes(word))) continue
      if (text.length > this.#left) {
        this.#skipped += 1
        return null
      }
      this.#left -= text.length
      const matcher = pattern?.matcher(text)
      if (matcher?.find() !== true) continue
      return `${where} has "${plainLine(matcher.group() ?? '', 80)}".`
    }
    return null
  }

  #once(key: string, make: () => readonly string[]): readonly Text[] {
    const known = this.#texts.get(key)
    if (known !== undefined) return known
    const texts = make().map((text) => ({
      text: text.slice(0, TEXT_MAX),
      lower: folded(text.slice(0, TEXT_MAX)),
    }))
    this.#texts.set(key, texts)
    return texts
  }

  #header(field: string): readonly Text[] {
    return this.#once(`header ${field}`, () => {
      const { header } = this.#look.mail
      if (field !== '*') return fieldValues(header, field).map(decodeText)
      return [header.fields.map(({ name, value }) => `${name}: ${decodeText(value)}`).join('\n')]
    })
  }

  #body(): string {
    const { text } = viewOf(this.#look.mail)
    return text
  }

  #links(): readonly string[] {
    return viewOf(this.#look.mail).links.map(({ url }) => url)
  }

  #raw(): string {
    return this.#look.mail.raw.toString('latin1', 0, TEXT_MAX)
  }

  /** The entry that the subject has in the map. */
  #lookUp({ entries, networks }: Prepared, of: MapSubject): string | null {
    const { mail, session } = this.#look
    switch (of) {
      case 'client':
        return networks.find(session.clientIp)
      case 'sender':
        return addressEntry(entries, session.sender)
      case 'recipient':
        return firstOf(session.recipients, (each) => addressEntry(entries, each))
      case 'author': {
        const authors = addressesIn(fieldValues(mail.header, 'from').join(','), 20)
        return firstOf(authors, (each) => addressEntry(entries, each))
      }
      case 'link':
        return firstOf(viewOf(mail).links, ({ host }) => hostEntry(entries, host ?? ''))
      case 'file':
        return firstOf(mail.leaves.slice(0, FILES_MAX), (part) =>
          firstOf(mail.contents(part), (content) => {
            const hash = digestOf(content)
            return entries.has(hash) ? hash : null
          }),
        )
    }
  }
}

const SUBJECTS: Readonly<Record<MapSubject, string>> = {
  sender: 'The sender',
  author: 'The author in From',
  client: 'The client',
  link: 'The host of a link',
  file: 'The content of a file',
  recipient: 'A recipient',
}

/** `a@b`, `@b` or `b`. */
function addressEntry(entries: ReadonlySet<string>, text: string): string | null {
  const address = parseAddress(text)
  if (address === null || address.domain === '') return null
  const { domain } = address
  const whole = `${address.local.toLowerCase()}@${domain}`
  return [whole, `@${domain}`, domain].find((entry) => entries.has(entry)) ?? null
}

/** The host or a domain above it. */
function hostEntry(entries: ReadonlySet<string>, host: string): string | null {
  const labels = host.split('.')
  return firstOf(labels, (_, index) => {
    const name = labels.slice(index).join('.')
    return entries.has(name) ? name : null
  })
}

function firstOf<Item>(
  items: readonly Item[],
  find: (item: Item, index: number) => string | null,
): string | null {
  for (const [index, item] of items.entries()) {
    const found = find(item, index)
    if (found !== null) return found
  }
  return null
}
