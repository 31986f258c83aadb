/**
 * What of a message is learnt and recognised: hashes of its words, of pairs of words near each
 * other (Siefkes et al., Combining Winnow and Orthogonal Sparse Bigrams, 2004), of its senders,
 * its links, the shape of its header and markup. One pass, and few strings: a hash is found again
 * in the text only where a person is told of it.
 */

import { decodeText, plainLine } from '../../message/header.ts'
import { hashOfText, TOKENS_MAX, tokenOf } from '../../message/learned.ts'
import type { Mail } from '../../message/mime.ts'
import { type Link, viewOf } from './view.ts'

/** Characters of text that are read; most mails are far shorter. */
const TEXT_CHARS_MAX = 100_000
/** A longer run of letters is no word: its length is what it says. */
const WORD_CHARS_MAX = 24
/** Fields of one message that are read, and characters of each. */
const FIELDS_MAX = 80
const FIELD_CHARS_MAX = 400
const LINKS_MAX = 100
const MARKUP_CHARS_MAX = 60_000

/** Where a token is from, in words for people. The number is part of the hash: it never changes. */
const KIND = {
  word: 0,
  subject: 1,
  sender: 2,
  'reply address': 3,
  field: 4,
  value: 5,
  route: 6,
  link: 7,
  markup: 8,
  file: 9,
} as const
type Kind = (typeof KIND)[keyof typeof KIND]
const KIND_NAMES = Object.keys(KIND)
const SEEDS = KIND_NAMES.map((_, index) => Math.imul(index + 1, 0x9e37_79b1))

const SLOTS = 4_096

/** The distinct tokens of one message, and how to name them. */
export class Tokens {
  readonly hashes = new Uint32Array(TOKENS_MAX)
  size = 0
  readonly #texts: string[] = []
  readonly #source = new Uint32Array(TOKENS_MAX)
  readonly #from = new Uint32Array(TOKENS_MAX)
  readonly #to = new Uint32Array(TOKENS_MAX)
  /** Open addressing; a slot holds the place in `hashes` and 1. */
  readonly #slots = new Uint16Array(SLOTS)

  /** For `add`: the text that places refer to. */
  text(text: string): number {
    return this.#texts.push(text) - 1
  }

  /** `from` to `to` of the text is what a person is shown. */
  add(kind: Kind, hash: number, text: number, from: number, to: number): void {
    if (this.size >= TOKENS_MAX) return
    const token = tokenOf(hash ^ (SEEDS[kind] as number))
    let slot = token & (SLOTS - 1)
    for (;;) {
      const at = this.#slots[slot] as number
      if (at === 0) break
      if (this.hashes[at - 1] === token) return
      slot = (slot + 1) & (SLOTS - 1)
    }
    const index = this.size
    this.size = index + 1
    this.#slots[slot] = index + 1
    this.hashes[index] = token
    this.#source[index] = text * 16 + kind
    this.#from[index] = from
    this.#to[index] = to
  }

  /** A token of a whole text, such as the name of a field. */
  name(kind: Kind, text: string, shown = text): void {
    this.add(kind, hashOfText(text), this.text(shown), 0, shown.length)
  }

  /** E.g. `subject “free offer”`. */
  describe(index: number): string {
    const source = this.#source[index] ?? 0
    const text = this.#texts[source >>> 4] ?? ''
    const words = plainLine(text.slice(this.#from[index], this.#to[index]), 40)
    const kind = KIND_NAMES[source & 15] ?? ''
    return kind === 'word' ? `“${words}”` : `${kind} “${words}”`
  }

  /** Of what a reader sees, not of how the mail came. */
  isSeen(index: number): boolean {
    const kind = (this.#source[index] ?? 0) & 15
    return kind === KIND.word || kind === KIND.link || kind === KIND.markup
  }

  /** As it is kept: ascending. */
  sorted(): Uint32Array {
    return this.hashes.slice(0, this.size).sort()
  }
}

/** At most TOKENS_MAX; the header first, for it says most in few. */
export function tokensOf(mail: Mail): Tokens {
  const view = viewOf(mail)
  const tokens = new Tokens()
  headerTokens(tokens, mail)
  fileTokens(tokens, mail)
  for (const link of view.links.slice(0, LINKS_MAX)) linkTokens(tokens, link)
  if (view.html !== null) markupTokens(tokens, markupOf(mail))
  wordTokens(tokens, KIND.word, view.text.slice(0, TEXT_CHARS_MAX))
  return tokens
}

/** Of what came after the message was sent, or of another judge. */
const IGNORED =
  /^(?:x-(?:spam|postern|virus|uid|status|keywords|mozilla|evolution|pyzor|original-to|rspamd|ms-exchange)|received-spf$|authentication-results|arc-|delivered-to$|return-path$|status$|lines$|content-length$|date$|to$|cc$|subject$|from$|reply-to$|received$|message-id$|dkim-signature$)/

function headerTokens(tokens: Tokens, { header }: Mail): void {
  let before = ''
  let fields = 0
  for (const { name, value } of header.fields) {
    if (fields >= FIELDS_MAX) break
    fields += 1
    const short = value.slice(0, FIELD_CHARS_MAX)
    switch (name) {
      case 'received':
        routeTokens(tokens, short)
        continue
      case 'subject':
        subjectTokens(tokens, decodeText(short))
        break
      case 'from':
        addressTokens(tokens, KIND.sender, decodeText(short))
        break
      case 'reply-to':
        addressTokens(tokens, KIND['reply address'], decodeText(short))
        break
      case 'to':
      case 'cc':
        tokens.name(KIND.value, `${name} ${Math.min(5, short.split('@').length - 1)}`)
        tokens.name(KIND.value, `${name} ${/^\s*[^<]*[\w"]\s+</.test(short) ? 'named' : 'bare'}`)
        break
      case 'message-id':
        tokens.name(KIND.value, `id ${shapeOf(short.split('@')[0] ?? '')}`)
        tokens.name(KIND.value, `id @${hostEnd(short.split('@')[1] ?? '')}`)
        break
      case 'date':
        tokens.name(KIND.value, `date ${/[+-]\d{4}.*$/.exec(short)?.[0] ?? shapeOf(short)}`)
        break
      case 'content-type':
        tokens.name(KIND.value, `type ${shapeOf(/boundary="?([^";]*)/i.exec(short)?.[1] ?? '')}`)
        tokens.name(KIND.value, `type ${short.replace(/boundary=.*/i, '').toLowerCase()}`)
        break
      default:
        if (IGNORED.test(name)) continue
        tokens.name(KIND.value, `${name} ${shapeOf(short)}`)
        valueTokens(tokens, name, short)
    }
    tokens.name(KIND.field, name)
    tokens.name(KIND.field, `${before} ${name}`)
    before = name
  }
}

/** Runs of letters and digits by their kind: `12.34-Ab` is `9.9-Aa`. */
function shapeOf(text: string): string {
  return text
    .slice(0, 80)
    .replace(/[A-Z]+/g, 'A')
    .replace(/[a-z]+/g, 'a')
    .replace(/[0-9]+/g, '9')
}

/** The last two labels of a host. */
function hostEnd(host: string): string {
  const labels = /[a-z0-9.-]+/.exec(host.toLowerCase())?.[0].split('.') ?? []
  return labels.slice(-2).join('.')
}

function valueTokens(tokens: Tokens, name: string, value: string): void {
  const source = tokens.text(value)
  const seed = hashOfText(name)
  for (const word of value.matchAll(/[\w.@-]{2,40}/g)) {
    tokens.add(
      KIND.value,
      hashOfText(word[0].toLowerCase(), seed),
      source,
      word.index,
      word.index + word[0].length,
    )
  }
}

function subjectTokens(tokens: Tokens, subject: string): void {
  wordTokens(tokens, KIND.subject, subject)
  tokens.name(
    KIND.subject,
    `shape ${/^re:/i.test(subject) ? 're' : ''} ${subject === subject.toUpperCase() ? 'caps' : ''} ${/\s{4}|\d{4,}\s*$/.test(subject) ? 'tail' : ''} ${/!/.test(subject) ? '!' : ''}`,
    subject,
  )
}

function addressTokens(tokens: Tokens, kind: Kind, value: string): void {
  wordTokens(tokens, kind, value.replace(/<[^>]*>/, ' '))
  const [, local = '', host = ''] = /([^\s<>"]+)@([a-z0-9.-]+)/i.exec(value.toLowerCase()) ?? []
  tokens.name(kind, `${local}@${host}`)
  tokens.name(kind, `@${host}`)
  tokens.name(kind, `@${hostEnd(host)}`)
  tokens.name(kind, `local ${shapeOf(local)}`, local)
}

function routeTokens(tokens: Tokens, value: string): void {
  const [, helo = '', rest = ''] = /^from\s+(\S{1,100})(.{0,150})/is.exec(value) ?? []
  tokens.name(KIND.route, `helo ${helo.includes('.') ? hostEnd(helo) : shapeOf(helo)}`, helo)
  const host = /\(\s*(?:[^@\s]*@)?([a-z0-9.-]+\.[a-z]{2,})/i.exec(rest)?.[1] ?? ''
  if (host !== '') tokens.name(KIND.route, `from ${hostEnd(host)}`, host)
  const address = /\[?(\d{1,3}\.\d{1,3})\.\d{1,3}\.\d{1,3}/.exec(rest)?.[1]
  if (address !== undefined) tokens.name(KIND.route, `ip ${address}`)
  const by = /\bby\s+([a-z0-9.-]+)/i.exec(value)?.[1] ?? ''
  tokens.name(KIND.route, `by ${hostEnd(by)}`, by)
}

function linkTokens(tokens: Tokens, { url, host, domain, where, tag }: Link): void {
  if (where === 'header') return
  const lower = url.slice(0, 300).toLowerCase()
  tokens.name(KIND.link, lower.slice(0, lower.indexOf(':')))
  tokens.name(KIND.link, `${where} ${tag}`)
  tokens.name(KIND.link, host)
  tokens.name(KIND.link, domain)
  const source = tokens.text(lower)
  const parts = /[a-z0-9_-]{2,40}/g
  parts.lastIndex = host === '' ? 0 : lower.indexOf(host) + host.length
  for (let part = parts.exec(lower); part !== null; part = parts.exec(lower)) {
    tokens.add(KIND.link, hashOfText(part[0]), source, part.index, part.index + part[0].length)
  }
}

function markupOf(mail: Mail): string {
  let markup = ''
  for (const part of mail.leaves) {
    if (!/^(?:text\/html|application\/xhtml)/.test(part.type)) continue
    const content = mail.contents(part)[0] ?? Buffer.of()
    markup += content.toString('latin1', 0, MARKUP_CHARS_MAX)
    if (markup.length >= MARKUP_CHARS_MAX) break
  }
  return markup.slice(0, MARKUP_CHARS_MAX)
}

/** Names of elements, and what their attributes say where it is short. */
function markupTokens(tokens: Tokens, markup: string): void {
  const source = tokens.text(markup)
  for (const tag of markup.matchAll(/<(!?\/?[a-z][a-z0-9]*)([^>]{0,300})/gi)) {
    const name = (tag[1] ?? '').toLowerCase()
    tokens.add(KIND.markup, hashOfText(name), source, tag.index, tag.index + name.length + 1)
    if (tag[2] === '') continue
    const seed = hashOfText(name)
    const base = tag.index + name.length + 1
    for (const attribute of (tag[2] ?? '').matchAll(/([a-z-]+)\s*=\s*["']?([^"'\s>]{0,24})/gi)) {
      if (/^(?:href|src|action|background)$/i.test(attribute[1] ?? '')) continue
      tokens.add(
        KIND.markup,
        hashOfText(attribute[0].toLowerCase(), seed),
        source,
        base + attribute.index,
        base + attribute.index + attribute[0].length,
      )
    }
  }
}

function fileTokens(tokens: Tokens, mail: Mail): void {
  for (const part of mail.parts.slice(0, 50)) {
    tokens.name(KIND.file, `${part.type} ${part.encodings.join()} ${part.charset ?? ''}`)
    tokens.name(KIND.file, `${part.type} ${part.disposition ?? ''}`)
    for (const name of part.names)
      tokens.name(KIND.file, /\.[a-z0-9]{1,6}$/i.exec(name)?.[0].toLowerCase() ?? 'no ending', name)
  }
}

/** Words, pairs of neighbours, and pairs with one word between. Case is folded; capitals are a token. */
function wordTokens(tokens: Tokens, kind: Kind, text: string): void {
  const source = tokens.text(text)
  let hash = 0
  let length = 0
  let start = 0
  let last = 0
  let lastStart = 0
  let older = 0
  let olderStart = 0
  let capitals = 0
  for (let at = 0; at <= text.length; at += 1) {
    let code = at < text.length ? text.charCodeAt(at) : 32
    if (code >= 65 && code <= 90) {
      code += 32
      capitals += 1
    }
    const isPart =
      (code >= 97 && code <= 122) ||
      (code >= 48 && code <= 57) ||
      code === 36 ||
      code === 39 ||
      code === 45 ||
      code === 95 ||
      code >= 0xa1
    if (isPart) {
      if (length === 0) {
        start = at
        hash = 0x811c_9dc5
        capitals = text.charCodeAt(at) === code ? 0 : 1
      }
      hash = Math.imul(hash ^ code, 0x0100_0193)
      length += 1
      // Scripts without spaces: every two characters are a word.
      if (code < 0x2e80 || length < 2) continue
    }
    if (length === 0) {
      if (code === 33) tokens.add(kind, 33, source, at, at + 1)
      continue
    }
    const end = isPart ? at + 1 : at
    if (length > WORD_CHARS_MAX) {
      tokens.add(kind, 0x5bd1_e995 + (length >> 3), source, start, start + WORD_CHARS_MAX)
      last = 0
      older = 0
    } else {
      tokens.add(kind, hash, source, start, end)
      if (capitals === length && length > 2)
        tokens.add(kind, hash ^ 0x3c6e_f372, source, start, end)
      if (last !== 0) tokens.add(kind, Math.imul(last, 0x2545_f491) ^ hash, source, lastStart, end)
      if (older !== 0)
        tokens.add(kind, Math.imul(older, 0x6c07_8965) ^ hash, source, olderStart, end)
      older = last
      olderStart = lastStart
      last = hash
      lastStart = start
    }
    length = 0
  }
}
