/**
 * Markup as mail programs read it, in one pass over the text: what is seen, what is hidden, and
 * where it leads (the forgiving ways of the HTML standard, section 13.2.5). It builds no tree: a
 * stack of open elements carries the few styles that hide text. htmlparser2 takes several times
 * as long for each mail, and knows nothing of what is seen; `entities` decodes the characters.
 */
import { decodeHTML, decodeHTMLAttribute } from 'entities'
import { alike, brightness, colour, readSheet, readStyle, type Sheet, type Style } from './css.ts'
import { BLOCK, ENDS, KNOWN, PARAGRAPH, RAW, READ, VOID } from './elements.ts'

/** A place in markup that leads elsewhere. */
export type Leading = {
  /** As it stood, entities decoded. */
  readonly written: string
  /** What a reader sees as the link; null: nothing is shown for it. At most 500 characters. */
  readonly shown: string | null
  readonly where: 'html' | 'form' | 'image'
  /** The element, lower case. */
  readonly tag: string
}

export type Markup = {
  /** What a reader sees; a line a block. */
  readonly text: string
  /** The seen text that stands outside of links: where a program makes links of its own. */
  readonly loose: string
  /** Text that is there and not seen. */
  readonly hidden: string
  readonly leading: readonly Leading[]
  /** `data:` links of images, at most 4 of at most 1 M characters. */
  readonly pictures: readonly string[]
  /** Brightness of table cells, 0 to 255, by row; empty where few are coloured. */
  readonly cells: readonly (readonly number[])[]
  readonly facts: MarkupFacts
}

/** Counts over the markup of a message. */
export type MarkupFacts = {
  /** Characters of markup that were read. */
  chars: number
  tags: number
  /** Characters in comments that no reader sees. */
  commentChars: number
  scripts: number
  /** Attributes such as `onload`. */
  handlers: number
  frames: number
  /** `object`, `embed`, `applet`. */
  objects: number
  forms: number
  passwords: number
  images: number
  /** Images of one or two pixels, or without any size to be seen. */
  pixels: number
  /** Images whose bytes are in the message: `cid:` or `data:`. */
  inlineImages: number
  refreshes: number
  title: string
  /** Target of the first `base`; null: none. */
  base: string | null
  /** Letters in a row of which each stands in an element of its own. */
  singles: number
  /** Comments, and elements that nobody knows, between two letters of a word. */
  brokenWords: number
  /** Elements that no version of HTML has. */
  oddTags: number
  /** Table cells with a background of their own, as drawings of squares have them. */
  paintedCells: number
}

export function noFacts(): MarkupFacts {
  return {
    chars: 0,
    tags: 0,
    commentChars: 0,
    scripts: 0,
    handlers: 0,
    frames: 0,
    objects: 0,
    forms: 0,
    passwords: 0,
    images: 0,
    pixels: 0,
    inlineImages: 0,
    refreshes: 0,
    title: '',
    base: null,
    singles: 0,
    brokenWords: 0,
    oddTags: 0,
    paintedCells: 0,
  }
}

const LEADING_MAX = 1_000
const PICTURES_MAX = 4
const PICTURE_CHARS_MAX = 1024 * 1024
const SHOWN_CHARS_MAX = 500
const STACK_MAX = 512
/** Table cells and rows that are kept, and coloured ones below which nothing is drawn: the smallest code has 200. */
const CELLS_MAX = 100_000
const PAINTED_MIN = 100
const SPAN_MAX = 200
const CONDITION_CHARS_MAX = 200
/** Open elements above the one that an end tag names; further down it is ignored. */
const CLOSE_REACH = 64

type Attributes = Map<string, string>

/** How the text of an element looks, with what it inherits. */
type Look = {
  readonly gone: boolean
  readonly size: number
  readonly ink: number
  readonly paper: number | 'unknown'
}

const PLAIN: Look = { gone: false, size: 16, ink: 0, paper: 0xffffff }
/** Pixels below which nobody reads. */
const SIZE_MIN = 2.5

/** Never throws; time is linear in the length of `source`. `facts` are added to. */
export function readMarkup(source: string, facts: MarkupFacts = noFacts()): Markup {
  const reader = new Reader(source.includes('\0') ? source.replaceAll('\0', '') : source, facts)
  reader.run()
  return reader.end()
}

class Reader {
  readonly #source: string
  readonly #facts: MarkupFacts
  readonly #text: string[] = []
  readonly #loose: string[] = []
  readonly #hidden: string[] = []
  readonly #leading: Leading[] = []
  readonly #pictures: string[] = []
  readonly #cells: number[][] = []
  #cellsLeft = CELLS_MAX
  readonly #painted: number
  readonly #names: string[] = []
  readonly #looks: Look[] = []
  readonly #sheet: Sheet = { rules: new Map(), vague: false }
  #look: Look = PLAIN
  #visible = true
  /** Target of the link whose text is read, and where that text begins. */
  #link: { written: string; from: number; tag: string } | null = null
  #at = 0
  /** No comment ends behind here: looked for once, so that many don't cost more. */
  #noCommentEnd = false
  #inOne = 0

  constructor(source: string, facts: MarkupFacts) {
    this.#source = source
    this.#facts = facts
    facts.chars += source.length
    this.#painted = facts.paintedCells
  }

  end(): Markup {
    this.#closeLink()
    return {
      text: tidyLines(this.#text.join('')),
      loose: this.#loose.join(''),
      hidden: tidyLines(this.#hidden.join('')),
      leading: this.#leading,
      pictures: this.#pictures,
      cells: this.#facts.paintedCells - this.#painted < PAINTED_MIN ? [] : this.#cells,
      facts: this.#facts,
    }
  }

  run(): void {
    const source = this.#source
    while (this.#at < source.length) {
      const open = source.indexOf('<', this.#at)
      if (open === -1) {
        this.#say(source.slice(this.#at))
        return
      }
      const code = source.charCodeAt(open + 1)
      if (isLetter(code)) {
        if (open > this.#at) this.#say(source.slice(this.#at, open))
        this.#at = open + 1
        this.#startTag()
      } else if (code === 47) {
        if (open > this.#at) this.#say(source.slice(this.#at, open))
        this.#at = open + 2
        this.#endTag()
      } else if (code === 33 || code === 63) {
        if (open > this.#at) this.#say(source.slice(this.#at, open))
        this.#at = open + 2
        this.#skipComment()
        this.#brokenAt(open)
      } else {
        // A `<` before anything else is text.
        this.#say(source.slice(this.#at, open + 1))
        this.#at = open + 1
      }
    }
  }

  /** What stood from `open` on is unseen: counts when it splits a word. */
  #brokenAt(open: number): void {
    if (
      isLetter(this.#source.charCodeAt(open - 1)) &&
      isLetter(this.#source.charCodeAt(this.#at))
    ) {
      this.#facts.brokenWords += 1
    }
  }

  /** After `<!` or `<?`. */
  #skipComment(): void {
    const source = this.#source
    if (source.startsWith('--', this.#at)) {
      // `<!--[if mso]>` opens what Outlook shows: its links count, so it is read on.
      if (source.startsWith('--[if', this.#at)) {
        const close = source.slice(this.#at, this.#at + CONDITION_CHARS_MAX).indexOf(']>')
        if (close !== -1) {
          this.#at += close + 2
          return
        }
      }
      if (source.startsWith('-->', this.#at)) this.#at += 3
      else if (source.startsWith('--->', this.#at)) this.#at += 4
      else if (this.#noCommentEnd) this.#at += 2
      else {
        const plain = source.indexOf('-->', this.#at + 2)
        const close = source.slice(this.#at, plain === -1 ? undefined : plain).indexOf('--!>', 2)
        if (close !== -1) {
          this.#facts.commentChars += close
          this.#at += close + 4
        } else if (plain !== -1) {
          this.#facts.commentChars += plain - this.#at
          this.#at = plain + 3
        } else {
          // Browsers hide all the rest; some mail programs do not: it is read.
          this.#noCommentEnd = true
          this.#at += 2
        }
      }
      return
    }
    this.#toTagEnd()
  }

  #toTagEnd(): void {
    const close = this.#source.indexOf('>', this.#at)
    this.#at = close === -1 ? this.#source.length : close + 1
  }

  #name(): string {
    const source = this.#source
    let end = this.#at
    while (end < source.length) {
      const code = source.charCodeAt(end)
      if (code === 62 || code === 47 || code <= 32) break
      end += 1
    }
    const name = source.slice(this.#at, Math.min(end, this.#at + 100)).toLowerCase()
    this.#at = end
    return name
  }

  #endTag(): void {
    if (!isLetter(this.#source.charCodeAt(this.#at))) {
      this.#toTagEnd()
      return
    }
    const name = this.#name()
    this.#toTagEnd()
    if (name === 'a' || name === this.#link?.tag) this.#closeLink()
    if (BLOCK.has(name)) this.#break(name)
    const names = this.#names
    const floor = Math.max(0, names.length - CLOSE_REACH)
    for (let index = names.length - 1; index >= floor; index -= 1) {
      if (names[index] !== name) continue
      names.length = index
      this.#looks.length = index
      this.#wear(this.#looks[index - 1] ?? PLAIN)
      return
    }
  }

  #startTag(): void {
    const open = this.#at - 1
    const name = this.#name()
    const attributes = this.#attributes()
    this.#facts.tags += 1
    if (!KNOWN.has(name) && /^[a-z0-9]+$/.test(name)) {
      this.#facts.oddTags += 1
      this.#brokenAt(open)
    }
    if (BLOCK.has(name)) this.#break(name)
    const ends = ENDS[name] ?? (BLOCK.has(name) && name !== 'br' ? PARAGRAPH : undefined)
    if (ends !== undefined) {
      for (let top = this.#names.at(-1); top !== undefined && ends.has(top); ) {
        if (top === 'a') this.#closeLink()
        this.#names.pop()
        this.#looks.pop()
        top = this.#names.at(-1)
      }
      this.#wear(this.#looks.at(-1) ?? PLAIN)
    }
    const look = this.#lookOf(name, attributes)
    if (name === 'tr') this.#row()
    else if (name === 'td' || name === 'th') this.#cell(attributes, look)
    if (attributes !== null) this.#read(name, attributes)
    else if (name === 'form') this.#facts.forms += 1
    else if (name === 'iframe' || name === 'frame') this.#facts.frames += 1
    if (RAW.has(name)) this.#skipRaw(name)
    else if (!VOID.has(name) && this.#names.length < STACK_MAX) {
      this.#names.push(name)
      this.#looks.push(look)
      this.#wear(look)
    }
  }

  /** Attributes that are read, the first of a name; null: none. Ends behind the tag. */
  #attributes(): Attributes | null {
    const source = this.#source
    let found: Attributes | null = null
    for (;;) {
      let code = source.charCodeAt(this.#at)
      while (code <= 32 || code === 47) {
        this.#at += 1
        code = source.charCodeAt(this.#at)
      }
      if (this.#at >= source.length) return found
      if (code === 62) {
        this.#at += 1
        return found
      }
      const from = this.#at
      this.#at += 1
      code = source.charCodeAt(this.#at)
      while (code > 32 && code !== 61 && code !== 62 && code !== 47) {
        this.#at += 1
        code = source.charCodeAt(this.#at)
      }
      const name = source.slice(from, Math.min(this.#at, from + 40)).toLowerCase()
      while (code <= 32) {
        this.#at += 1
        code = source.charCodeAt(this.#at)
      }
      let value = ''
      if (code === 61) value = this.#value()
      if (READ.has(name)) {
        found ??= new Map()
        if (!found.has(name)) found.set(name, value)
      } else if (name.startsWith('on') && name.length > 4) this.#facts.handlers += 1
    }
  }

  /** After the name, at `=`. */
  #value(): string {
    const source = this.#source
    this.#at += 1
    let code = source.charCodeAt(this.#at)
    while (code <= 32) {
      this.#at += 1
      code = source.charCodeAt(this.#at)
    }
    const from = this.#at
    if (code === 34 || code === 39) {
      const close = source.indexOf(code === 34 ? '"' : "'", from + 1)
      if (close !== -1) {
        this.#at = close + 1
        return source.slice(from + 1, close)
      }
      // Never closed: browsers drop the rest. It is read up to the tag's end, and on.
      const end = source.indexOf('>', from)
      this.#at = end === -1 ? source.length : end
      return source.slice(from + 1, this.#at)
    }
    while (code > 32 && code !== 62) {
      this.#at += 1
      code = source.charCodeAt(this.#at)
    }
    return source.slice(from, this.#at)
  }

  #skipRaw(name: string): void {
    const source = this.#source
    const end = new RegExp(`</${name}(?=[\\s/>]|$)`, 'gi')
    end.lastIndex = this.#at
    const close = end.exec(source)?.index ?? source.length
    const content = source.slice(this.#at, close)
    this.#at = close
    if (name === 'style') readSheet(content, this.#sheet)
    else if (name === 'script') this.#facts.scripts += 1
    else if (name === 'title') this.#facts.title ||= decode(content.slice(0, 500)).trim()
    else if (name === 'xmp') this.#say(content)
    else if (content.length > 0) this.#hidden.push(' ', content.slice(0, 10_000))
  }

  #lookOf(name: string, attributes: Attributes | null): Look {
    let look = this.#look
    const { rules } = this.#sheet
    if (rules.size > 0) {
      look = this.#dress(look, rules.get(name))
      const classes = attributes?.get('class')
      if (classes !== undefined) {
        for (const each of classes.toLowerCase().split(/\s+/, 10)) {
          look = this.#dress(look, rules.get(`.${each}`))
        }
      }
      const id = attributes?.get('id')
      if (id !== undefined) look = this.#dress(look, rules.get(`#${id.toLowerCase()}`))
    }
    if (attributes === null) return look
    const bgcolor = attributes.get('bgcolor')
    const background = attributes.get('background')
    const color = attributes.get('color')
    if ((bgcolor ?? background ?? color) !== undefined) {
      look = {
        gone: look.gone,
        size: look.size,
        ink: color === undefined ? look.ink : (colour(color.trim().toLowerCase()) ?? look.ink),
        paper:
          background !== undefined
            ? 'unknown'
            : bgcolor === undefined || bgcolor === ''
              ? look.paper
              : (colour(bgcolor.trim().toLowerCase()) ?? 'unknown'),
      }
    }
    const style = attributes.get('style')
    if (style !== undefined) look = this.#dress(look, readStyle(decodeAttribute(style)))
    if (attributes.has('hidden')) look = { ...look, gone: true }
    return look
  }

  #dress(look: Look, style: Style | undefined): Look {
    if (style === undefined) return look
    const { gone, size, ink, paper } = style
    if (!gone && size === null && ink === null && paper === null) return look
    return {
      gone: look.gone || gone,
      size: size ?? look.size,
      ink: ink ?? look.ink,
      paper: paper ?? look.paper,
    }
  }

  #wear(look: Look): void {
    if (look === this.#look) return
    this.#look = look
    this.#visible = this.#isSeen(look)
  }

  #isSeen({ gone, size, ink, paper }: Look): boolean {
    if (gone || size < SIZE_MIN) return false
    return paper === 'unknown' || this.#sheet.vague || !alike(ink, paper)
  }

  #read(name: string, attributes: Attributes): void {
    const facts = this.#facts
    switch (name) {
      case 'a':
      case 'area':
      case 'v:roundrect':
      case 'v:rect': {
        const written = attributes.get('href') ?? attributes.get('xlink:href')
        if (written === undefined) return
        this.#closeLink()
        if (name === 'area') this.#lead(written, null, 'html', name)
        else this.#link = { written, from: this.#text.length, tag: name }
        return
      }
      case 'base':
        facts.base ??= decodeAttribute(attributes.get('href') ?? '').trim() || null
        return
      case 'img':
      case 'image':
        facts.images += 1
        this.#image(name, attributes)
        return
      case 'input':
        if (attributes.get('type')?.toLowerCase() === 'password') facts.passwords += 1
        this.#lead(attributes.get('formaction'), null, 'form', name)
        this.#lead(attributes.get('src'), null, 'image', name)
        return
      case 'form':
        facts.forms += 1
        this.#lead(attributes.get('action'), null, 'form', name)
        return
      case 'button':
        this.#lead(attributes.get('formaction'), null, 'form', name)
        return
      case 'iframe':
      case 'frame':
        facts.frames += 1
        this.#lead(attributes.get('src'), null, 'html', name)
        return
      case 'object':
      case 'embed':
      case 'applet':
        facts.objects += 1
        this.#lead(attributes.get('data') ?? attributes.get('src'), null, 'html', name)
        return
      case 'script':
        this.#lead(attributes.get('src'), null, 'html', name)
        return
      case 'meta':
        this.#meta(attributes)
        return
      case 'td':
      case 'th':
        this.#lead(attributes.get('background'), null, 'image', name)
        return
      case 'body':
      case 'table':
        this.#lead(attributes.get('background'), null, 'image', name)
        return
      default:
    }
  }

  #row(): void {
    this.#cellsLeft -= 1
    if (this.#cellsLeft >= 0) this.#cells.push([])
  }

  #cell(attributes: Attributes | null, { paper }: Look): void {
    if (paper !== this.#look.paper) this.#facts.paintedCells += 1
    const span = Math.trunc(Number(attributes?.get('colspan') ?? 1))
    const width = span >= 1 && span <= SPAN_MAX ? span : 1
    this.#cellsLeft -= width
    if (this.#cellsLeft < 0) return
    const value = paper === 'unknown' ? 255 : brightness(paper)
    for (let index = 0; index < width; index += 1) this.#cells.at(-1)?.push(value)
  }

  #image(name: string, attributes: Attributes): void {
    const source = attributes.get('src') ?? attributes.get('href')
    const small = (value: string | undefined): boolean =>
      value !== undefined && /^\s*[012](?:px)?\s*$/.test(value)
    if (small(attributes.get('width')) || small(attributes.get('height'))) this.#facts.pixels += 1
    if (source !== undefined && /^\s*(?:cid|data):/i.test(source)) {
      this.#facts.inlineImages += 1
      const drawn = source.length <= PICTURE_CHARS_MAX && /^\s*data:image/i.test(source)
      if (drawn && this.#pictures.length < PICTURES_MAX) this.#pictures.push(source)
    } else this.#lead(source, null, 'image', name)
    const alt = attributes.get('alt')
    // Shown where images are not loaded; in a link it is what the link says.
    if (alt !== undefined && alt !== '' && this.#visible) {
      if (this.#link === null) this.#say(` ${alt} `)
      else this.#text.push(` ${decodeAttribute(alt.slice(0, 1_000))} `)
    }
  }

  #meta(attributes: Attributes): void {
    if (attributes.get('http-equiv')?.trim().toLowerCase() !== 'refresh') return
    const target = /url\s*=\s*['"]?([^'"]*)/i.exec(attributes.get('content') ?? '')?.[1]
    if (target === undefined) return
    this.#facts.refreshes += 1
    this.#lead(target, null, 'html', 'meta')
  }

  #lead(
    written: string | undefined,
    shown: string | null,
    where: Leading['where'],
    tag: string,
  ): void {
    if (written === undefined || written === '' || this.#leading.length >= LEADING_MAX) return
    this.#leading.push({ written: decodeAttribute(written), shown, where, tag })
  }

  #closeLink(): void {
    const link = this.#link
    if (link === null) return
    this.#link = null
    const shown = this.#text.slice(link.from, link.from + 1_000).join('')
    this.#lead(link.written, oneLine(shown).slice(0, SHOWN_CHARS_MAX), 'html', link.tag)
  }

  #break(name: string): void {
    // A break inside a link belongs to what the link shows.
    const line = name === 'td' || name === 'th' ? ' \t' : '\n'
    this.#text.push(line)
    this.#loose.push(line)
    this.#hidden.push(' ')
    this.#inOne = 0
  }

  #say(written: string): void {
    const text = decode(written)
    if (!this.#visible) {
      this.#hidden.push(text)
      return
    }
    this.#text.push(text)
    this.#loose.push(this.#link === null ? text : ' ')
    const bare = text.length <= 3 ? text.trim().length : 2
    if (bare === 1) {
      this.#inOne += 1
      if (this.#inOne > this.#facts.singles) this.#facts.singles = this.#inOne
    } else if (bare > 1) this.#inOne = 0
  }
}

function isLetter(code: number): boolean {
  return (code >= 97 && code <= 122) || (code >= 65 && code <= 90)
}

function decode(text: string): string {
  return text.includes('&') ? decodeHTML(text) : text
}

function decodeAttribute(text: string): string {
  return text.includes('&') ? decodeHTMLAttribute(text) : text
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

/** What one blank stands for; a single one is left out, since most are that. */
export const BLANKS = /[ \t\r\f\v\u00a0]{2,}|[\t\r\f\v\u00a0]/g

/** Blanks in a row become one, lines in a row too. */
function tidyLines(text: string): string {
  return text
    .replace(BLANKS, ' ')
    .replace(/ \n[\n ]*|\n[\n ]+/g, '\n')
    .trim()
}
