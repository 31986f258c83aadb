/**
 * A message made safe to show. mailparser reads it as mail programs do, sanitize-html keeps
 * structure and words of the markup and nothing else; files are listed from our own walk, which
 * hides none.
 */
import { simpleParser } from 'mailparser'
import sanitizeHtml from 'sanitize-html'
import { messageOf } from '../../base/errors.ts'
import { digestOf } from '../../message/digest.ts'
import { decodeText, fieldValue, plainLine } from '../../message/header.ts'
import { Mail, type Part } from '../../message/mime.ts'
import type { Preview } from './contract.ts'
import { parseFindings } from './parse.ts'

/** Markup above this size is cut before it is sanitised: about a second of work. */
const MARKUP_CHARS_MAX = 1_000_000
/** Bounds of contract.ts `Preview`. */
const HTML_CHARS_MAX = 512 * 1024
const TEXT_CHARS_MAX = 256 * 1024
const HEADERS_MAX = 500
const FILES_MAX = 1_000
/** Images inside the mail: each, and all together, in characters of their data: URL. */
const IMAGE_CHARS_MAX = 64 * 1024
const IMAGES_CHARS_MAX = 256 * 1024

/** Never rejects for what a mail holds: what cannot be shown becomes a note. */
export async function previewOf(raw: Buffer): Promise<Preview> {
  const mail = new Mail(raw)
  const notes = parseFindings(mail).map(({ score, evidence }) =>
    score > 0 ? `Mail programs may show this differently: ${evidence}` : evidence,
  )
  const { text, markup } = await bodies(raw, notes)
  const line = (name: string, max: number): string | null => {
    const value = fieldValue(mail.header, name)
    return value === null ? null : plainLine(decodeText(value.slice(0, max * 8)), max)
  }
  return {
    subject: line('subject', 1_000),
    from: line('from', 4_000),
    to: line('to', 4_000),
    date: line('date', 200),
    headers: mail.header.fields.slice(0, HEADERS_MAX).map(({ name, value }) => ({
      name: name.replace(/(?:^|-)[a-z]/g, (letter) => letter.toUpperCase()).slice(0, 200),
      value: plainLine(decodeText(value.slice(0, 8_000)), 8_000),
    })),
    text: text === null ? null : cut(text, TEXT_CHARS_MAX, 'The text', notes),
    html: markup === null ? null : safeMarkup(markup, mail, notes),
    attachments: files(mail).slice(0, FILES_MAX),
    notes,
  }
}

async function bodies(
  raw: Buffer,
  notes: string[],
): Promise<{ text: string | null; markup: string | null }> {
  try {
    const parsed = await simpleParser(raw, {
      skipHtmlToText: true,
      skipTextToHtml: true,
      skipTextLinks: true,
      skipImageLinks: true,
      maxHtmlLengthToParse: MARKUP_CHARS_MAX,
    })
    return { text: parsed.text ?? null, markup: parsed.html === false ? null : parsed.html }
  } catch (error) {
    notes.push(
      `The message could not be read as mail programs do: ${plainLine(messageOf(error), 200)}.`,
    )
    return { text: raw.toString('utf8', 0, TEXT_CHARS_MAX), markup: null }
  }
}

function cut(text: string, max: number, what: string, notes: string[]): string {
  if (text.length <= max) return text
  notes.push(`${what} is shown up to ${max / 1024} KB.`)
  return text.slice(0, max)
}

/** No links, no loads, no forms, no style, no names: structure and words. */
const TAGS = [
  'p',
  'div',
  'span',
  'br',
  'hr',
  'h1',
  'h2',
  'h3',
  'h4',
  'h5',
  'h6',
  'b',
  'strong',
  'i',
  'em',
  'u',
  's',
  'sub',
  'sup',
  'small',
  'blockquote',
  'pre',
  'code',
  'ul',
  'ol',
  'li',
  'dl',
  'dt',
  'dd',
  'table',
  'caption',
  'thead',
  'tbody',
  'tfoot',
  'tr',
  'td',
  'th',
  'center',
  'img',
]

/** Raster only: SVG is a program. */
const IMAGE = /^data:image\/(?:png|jpe?g|gif|webp);base64,[a-z0-9+/=\s]+$/i

function safeMarkup(markup: string, mail: Mail, notes: string[]): string {
  let imageChars = 0
  let dropped = 0
  let links = 0
  const image = (source: string): string | null => {
    const data = /^cid:/i.test(source) ? inlineImage(mail, source.slice(4)) : source
    if (data === null || data.length > IMAGE_CHARS_MAX || !IMAGE.test(data)) return null
    imageChars += data.length
    return imageChars > IMAGES_CHARS_MAX ? null : data
  }
  let html: string
  try {
    html = sanitizeHtml(cut(markup, MARKUP_CHARS_MAX, 'The markup', notes), {
      allowedTags: TAGS,
      allowedAttributes: {
        img: ['src', 'alt', 'width', 'height'],
        td: ['colspan', 'rowspan', 'align'],
        th: ['colspan', 'rowspan', 'align'],
        span: [TARGET],
        '*': ['dir'],
      },
      allowedSchemes: [],
      allowedSchemesByTag: { img: ['data'] },
      allowProtocolRelative: false,
      disallowedTagsMode: 'discard',
      enforceHtmlBoundary: false,
      nestingLimit: 200,
      transformTags: {
        a: (_, { href }) => {
          if (href === undefined) return { tagName: 'span', attribs: {} }
          links += 1
          return { tagName: 'span', attribs: { [TARGET]: harmlessUrl(href) } }
        },
        span: (_, { dir }) => ({ tagName: 'span', attribs: dir === undefined ? {} : { dir } }),
        img: (_, { src, alt, width, height }) => {
          const data = image(src ?? '')
          if (data === null) {
            dropped += 1
            return {
              tagName: 'i',
              attribs: {},
              text: `[image${alt === undefined || alt === '' ? '' : `: ${alt}`}]`,
            }
          }
          const attribs: Record<string, string> = { src: data, alt: alt ?? '' }
          if (/^\d{1,4}$/.test(width ?? '')) attribs['width'] = width ?? ''
          if (/^\d{1,4}$/.test(height ?? '')) attribs['height'] = height ?? ''
          return { tagName: 'img', attribs }
        },
      },
    })
  } catch (error) {
    notes.push(
      `The markup could not be made safe and is not shown: ${plainLine(messageOf(error), 200)}.`,
    )
    return ''
  }
  if (links > 0) notes.push(`${links} links are shown as text.`)
  if (dropped > 0) notes.push(`${dropped} images are not shown.`)
  return cut(html, HTML_CHARS_MAX, 'The markup', notes).replace(TARGETS, '<code>[$1]</code> <span>')
}

/** Carries the target of a link through the sanitiser; it leaves as text before the link's words. */
const TARGET = 'data-postern-target'
const TARGETS = new RegExp(`<span ${TARGET}="([^"]*)">`, 'g')

/** Readable, and nothing that a program makes a link of: `hxxp://a[.]b/c`. */
function harmlessUrl(url: string): string {
  const shown = plainLine(url, 300).replace(/\s+/g, '')
  const match = /^([a-z][a-z0-9+.-]*):(\/\/)?([^/?#]*)(.*)$/i.exec(shown)
  if (match === null) return shown.replaceAll('.', '[.]')
  const [, scheme = '', slashes, host = '', rest = ''] = match
  if (slashes === undefined) return `${scheme}[:]${host.replaceAll('.', '[.]')}${rest}`
  return `${scheme.replace(/^http/i, 'hxxp')}://${host.replaceAll('.', '[.]')}${rest}`
}

function inlineImage(mail: Mail, id: string): string | null {
  const part = mail.leaves.find(
    (leaf) => fieldValue(leaf.header, 'content-id')?.replace(/^<|>$/g, '') === id,
  )
  if (part === undefined || part.end - part.start > IMAGE_CHARS_MAX) return null
  const [content] = mail.contents(part)
  return content === undefined ? null : `data:${part.type};base64,${content.toString('base64')}`
}

function files(mail: Mail): Preview['attachments'] {
  return mail.leaves.filter(isFile).map((part) => {
    const content = mail.contents(part)[0] ?? Buffer.of()
    return {
      name: plainLine(part.names[0] ?? '', 500) || 'without a name',
      type: plainLine(part.type, 200),
      sizeBytes: content.length,
      sha256: digestOf(content),
    }
  })
}

function isFile(part: Part): boolean {
  return (
    part.names.length > 0 || part.disposition === 'attachment' || !part.type.startsWith('text/')
  )
}
