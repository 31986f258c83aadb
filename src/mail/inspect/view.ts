/**
 * What a reader sees of a message, and what it hides: made once and shared by all inspectors
 * that look at words and links. Text parts and markup are decoded to characters and read within
 * bounds; nothing here judges.
 */

import { decodeText, fieldValue, fieldValues } from '../../message/header.ts'
import type { Mail, Part } from '../../message/mime.ts'
import { readingsOf } from '../../message/texts.ts'
import { type Drawing, drawingsIn, linesOfMarkup } from './drawn.ts'
import { BLANKS, type Leading, type Markup, type MarkupFacts, noFacts, readMarkup } from './html.ts'
import {
  findWritten,
  INVISIBLE,
  nestedTarget,
  openTarget,
  type Target,
  URL_CHARS_MAX,
  type Written,
} from './urls.ts'

export type Place = 'text' | 'html' | 'form' | 'image' | 'pdf' | 'qr' | 'header'

export type Link = Target & {
  /** As it stood, entities decoded; at most 2,000 characters. */
  readonly written: string
  /** What a reader sees as the link; null: the link itself, or nothing. */
  readonly shown: string | null
  readonly where: Place
  /** The element of the markup, lower case; empty elsewhere. */
  readonly tag: string
  /** It stands inside this address, which sends a reader on; null: it stands by itself. */
  readonly via: string | null
  /** Text that keeps it from programs, for a reader to put right; see urls.ts. */
  readonly spelled: Written['spelled']
}

export type View = {
  /** Decoded; empty when there is none. */
  readonly subject: string
  /**
   * What a reader sees, text parts and markup alike: invisible characters removed, blanks in a
   * row made one, a line a block. At most 256 K characters.
   */
  readonly text: string
  /** The same of the text parts alone. */
  readonly plain: string
  /** The same of the markup alone. */
  readonly marked: string
  /** Text that the markup holds and does not show. */
  readonly hidden: string
  /** Null: no part is markup. */
  readonly html: MarkupFacts | null
  /** Without doubles, in the order of the message; at most 1,000. */
  readonly links: readonly Link[]
  /** Pictures that the markup carries inside itself, as `data:` links. */
  readonly pictures: readonly string[]
  /** Lines that draw, at most 4. */
  readonly drawings: readonly Drawing[]
  /** Table cells of the markup, where enough of them are coloured to draw something. */
  readonly cells: Markup['cells']
  /** Invisible characters between letters of words, of scripts that have no use for them. */
  readonly splits: number
  /** Text, markup or links went on past a bound. */
  readonly cut: boolean
}

const TEXT_CHARS_MAX = 256 * 1024
/** Octets of markup, and of text, that are read of one message. */
const MARKUP_BYTES_MAX = 1024 * 1024
const TEXT_BYTES_MAX = 512 * 1024
const LINKS_MAX = 1_000
const DRAWINGS_MAX = 4
/** Addresses inside an address inside an address. */
const NESTED_MAX = 3

const views = new WeakMap<Mail, View>()

/** Never throws. The same object for the same mail. */
export function viewOf(mail: Mail): View {
  const known = views.get(mail)
  if (known !== undefined) return known
  const view = new Sight(mail).view()
  views.set(mail, view)
  return view
}

class Sight {
  readonly #mail: Mail
  readonly #links = new Map<string, Link>()
  readonly #plain: string[] = []
  readonly #marked: string[] = []
  readonly #hidden: string[] = []
  readonly #pictures: string[] = []
  readonly #drawings: Drawing[] = []
  #cells: Markup['cells'] = []
  #facts: MarkupFacts | null = null
  #textLeft = TEXT_BYTES_MAX
  #markupLeft = MARKUP_BYTES_MAX
  #splits = 0
  #cut = false

  constructor(mail: Mail) {
    this.#mail = mail
  }

  view(): View {
    const subject = this.#clean(
      decodeText((fieldValue(this.#mail.header, 'subject') ?? '').slice(0, 8_000)),
    )
    this.#written(subject, 'text')
    let bodies = 0
    for (const part of this.#mail.leaves) {
      const kind = kindOf(part)
      if (kind === null) continue
      // A text that is attached is read by who opens it; the first one is the mail itself.
      const attached = part.disposition === 'attachment' || part.names.length > 0
      if (kind === 'text' && attached && bodies > 0) continue
      bodies += 1
      for (const content of this.#mail.contents(part)) {
        if (kind === 'text') this.#readText(content, part)
        else this.#readHtml(content, part)
      }
    }
    for (const value of fieldValues(this.#mail.header, 'list-unsubscribe')) {
      this.#written(value.slice(0, 4_000), 'header')
    }
    const plain = this.#bounded(this.#plain)
    const marked = this.#bounded(this.#marked)
    return {
      subject,
      text: plain === '' ? marked : marked === '' ? plain : this.#bounded([plain, marked]),
      plain,
      marked,
      hidden: this.#bounded(this.#hidden),
      html: this.#facts,
      links: [...this.#links.values()],
      pictures: this.#pictures,
      drawings: this.#drawings.slice(0, DRAWINGS_MAX),
      cells: this.#cells,
      splits: this.#splits,
      cut: this.#cut || this.#links.size >= LINKS_MAX,
    }
  }

  #readText(content: Buffer, part: Part): void {
    const piece = this.#take(content, this.#textLeft)
    this.#textLeft -= piece.length
    for (const written of readingsOf(piece, part.charset)) {
      // Links first: an invisible character inside one is told by what it was.
      this.#written(written, 'text')
      this.#drawings.push(...drawingsIn(written))
      const text = this.#clean(written).replace(BLANKS, ' ').trim()
      if (text !== '') this.#plain.push(text)
    }
  }

  #readHtml(content: Buffer, part: Part): void {
    const piece = this.#take(content, this.#markupLeft)
    this.#markupLeft -= piece.length
    const charset = part.charset ?? declaredCharset(piece)
    for (const source of readingsOf(piece, charset)) this.#readSource(source)
  }

  #readSource(source: string): void {
    this.#facts ??= noFacts()
    const before = this.#facts.base
    this.#facts.base = null
    const markup = readMarkup(source, this.#facts)
    const { text, loose, hidden, leading, pictures, cells, facts } = markup
    this.#pictures.push(...pictures)
    this.#drawings.push(...drawingsIn(linesOfMarkup(source)))
    if (cells.length > this.#cells.length) this.#cells = cells
    const base = facts.base
    facts.base ??= before
    for (const each of leading) this.#lead(each, base)
    this.#written(loose, 'text')
    const clean = this.#clean(text)
    if (clean !== '') this.#marked.push(clean)
    const unseen = hidden.replace(INVISIBLE, '').trim()
    if (unseen !== '') this.#hidden.push(unseen)
  }

  #take(content: Buffer, left: number): Buffer {
    if (content.length <= left) return content
    this.#cut = true
    return content.subarray(0, left)
  }

  #clean(text: string): string {
    if (!/[^\x00-\x7f]/.test(text) || !IS_INVISIBLE.test(text)) return text
    this.#splits += text.match(SPLIT)?.length ?? 0
    return text.replace(INVISIBLE, '')
  }

  #lead({ written, shown, where, tag }: Leading, base: string | null): void {
    const link = { written: written.slice(0, URL_CHARS_MAX), shown, where, tag, spelled: null }
    this.#add(openTarget(written, base), link)
  }

  #written(text: string, where: Place): void {
    for (const { written, bare, spelled } of findWritten(text)) {
      const link = { written, shown: null, where, tag: '', spelled }
      this.#add(openTarget(bare ? `http://${written}` : written), link)
    }
  }

  #add(target: Target | null, link: Omit<Link, keyof Target | 'via'>): void {
    if (target === null || !this.#keep({ ...target, ...link, via: null })) return
    // Bounded: each one is shorter than the one around it.
    let outer = target
    for (let depth = 0; depth < NESTED_MAX; depth += 1) {
      const inner = nestedTarget(outer.url)
      if (inner === null) return
      this.#keep({ ...inner, ...link, written: inner.url, via: outer.url })
      outer = inner
    }
  }

  /** False: it is known already. */
  #keep(link: Link): boolean {
    const key = `${link.where} ${link.written} ${link.shown ?? ''}`
    if (this.#links.has(key)) return false
    if (this.#links.size < LINKS_MAX) this.#links.set(key, link)
    return true
  }

  #bounded(pieces: readonly string[]): string {
    const text = pieces.length === 1 ? (pieces[0] ?? '') : pieces.join('\n')
    if (text.length <= TEXT_CHARS_MAX) return text
    this.#cut = true
    return text.slice(0, TEXT_CHARS_MAX)
  }
}

/** INVISIBLE without its state. */
const IS_INVISIBLE = new RegExp(INVISIBLE.source)
/** Between letters of Latin, Greek or Cyrillic, where no script needs one; soft hyphens are honest. */
const SPLIT =
  /[a-z\u00c0-\u052f](?:\u034f|[\u200b-\u200f\u2060-\u2064\ufeff])+(?=[a-z\u00c0-\u052f])/gi

const MARKUP_TYPES = new Set(['text/html', 'application/xhtml+xml', 'text/x-amp-html'])

function kindOf({ type, names }: Part): 'text' | 'html' | null {
  if (MARKUP_TYPES.has(type)) return 'html'
  // A page that is attached under another type opens as a page.
  if (names.some((name) => /\.x?html?$/i.test(name.trim()))) return 'html'
  return type.startsWith('text/') ? 'text' : null
}

/** `<meta charset>` or its older form, in the first kilobyte as browsers look. */
function declaredCharset(content: Buffer): string | null {
  const head = content.toString('latin1', 0, 1_024)
  return (
    /<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w-]{1,40})/i.exec(head)?.[1]?.toLowerCase() ?? null
  )
}
