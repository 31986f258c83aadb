/** The mailboxes of a From or Reply-To field as a reader shows them: name and address (RFC 5322 section 3.4). */
import { parseAddress } from '../../message/address.ts'
import { decodeText, octetsToText } from '../../message/header.ts'

export type Mailbox = {
  /** Decoded, quotes taken off; of `a@b.c (Ada)` the comment. Empty: none. Not cleaned. */
  readonly name: string
  /** Lower case, domain as A-labels; empty when what stands there is none. */
  readonly address: string
  readonly domain: string
}

export type MailboxList = {
  readonly boxes: readonly Mailbox[]
  /** `Team: a@b.c, d@e.f;` (RFC 6854). */
  readonly isGroup: boolean
}

const BOXES_MAX = 20
const FIELD_CHARS_MAX = 8_192

/** Never throws; a field as message/header gives it. */
export function mailboxesIn(field: string): MailboxList {
  const pieces = piecesOf(field.slice(0, FIELD_CHARS_MAX))
  const isGroup = pieces.some(({ bare }) => /^[^<@]*:/.test(bare))
  return { boxes: pieces.slice(0, BOXES_MAX).flatMap((piece) => boxOf(piece) ?? []), isGroup }
}

type Piece = {
  /** Without comments. */
  readonly text: string
  /** Without comments and quoted texts. */
  readonly bare: string
  readonly comment: string
}

/** What stands between commas and semicolons outside quotes, comments and angle brackets. */
function piecesOf(field: string): readonly Piece[] {
  const pieces: Piece[] = []
  let text = ''
  let bare = ''
  let comment = ''
  let quoted = false
  let angle = false
  let depth = 0
  const end = (): void => {
    if (text.trim() !== '') pieces.push({ text: text.trim(), bare: bare.trim(), comment })
    text = ''
    bare = ''
    comment = ''
    angle = false
  }
  for (let at = 0; at < field.length; at++) {
    const char = field[at] ?? ''
    if (char === '\\' && (quoted || depth > 0)) {
      at += 1
      if (depth > 0) comment += field[at] ?? ''
      else text += `\\${field[at] ?? ''}`
    } else if (depth > 0) {
      if (char === '(') depth += 1
      else if (char === ')') depth -= 1
      if (depth > 0) comment += char
    } else if (char === '"') {
      quoted = !quoted
      text += char
    } else if (quoted) text += char
    else if (char === '(') depth = 1
    else if ((char === ',' || char === ';') && !angle) end()
    else {
      if (char === '<') angle = true
      else if (char === '>') angle = false
      text += char
      bare += char
    }
  }
  end()
  return pieces
}

function boxOf({ text, bare, comment }: Piece): Mailbox | null {
  // The last bracket holds the address; what looks like one before it is a name.
  const open = text.lastIndexOf('<')
  if (open < 0 || !bare.includes('<')) {
    const written = text.slice(
      bare.includes(':') && !text.startsWith('"') ? text.indexOf(':') + 1 : 0,
    )
    if (written.trim() === '') return null
    return { name: clean(comment), ...addressOf(written) }
  }
  const close = text.indexOf('>', open)
  const inner = text.slice(open + 1, close < 0 ? undefined : close)
  const before = text.slice(0, open).replace(/^[^"<]*:\s*(?=["\w])/, '')
  return { name: clean(before) || clean(comment), ...addressOf(inner) }
}

function addressOf(written: string): Pick<Mailbox, 'address' | 'domain'> {
  const parsed = parseAddress(octetsToText(written).replace(/\s+/g, ''))
  if (parsed === null || parsed.domain === '') return { address: '', domain: '' }
  return { address: `${parsed.local.toLowerCase()}@${parsed.domain}`, domain: parsed.domain }
}

/** Encoded words also inside quotes: most readers decode them there, against RFC 2047 section 5. */
function clean(name: string): string {
  const plain = name.trim().replace(/\\(.)/g, '$1').replace(/^"|"$/g, '')
  return decodeText(plain.replace(/"/g, '')).trim()
}
