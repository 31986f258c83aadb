/** CMS (RFC 5652) as S/MIME carries it: whether it is encrypted, and the message inside a signature. */

/** `message` null: encrypted, nobody looks into it. Else what is signed. */
export type Cms = { readonly message: Buffer | null }

/** 1.2.840.113549.1.7: signedData is .2, envelopedData .3, authEnvelopedData 1.9.16.1.23. */
const PKCS7 = Buffer.from('2a864886f70d0107', 'hex')
const AUTH_ENVELOPED = Buffer.from('2a864886f70d0109100117', 'hex')
const SIGNED = 2
const ENVELOPED = 3
const ENCRYPTED = 6

/** Null when it is neither of both, or signed without its content. Never throws. */
export function readCms(bytes: Buffer): Cms | null {
  if (bytes[0] !== 0x30) return null
  const head = bytes.subarray(0, 32)
  if (head.includes(AUTH_ENVELOPED)) return { message: null }
  const at = head.indexOf(PKCS7)
  const kind = at === -1 ? undefined : bytes[at + PKCS7.length]
  if (kind === ENVELOPED || kind === ENCRYPTED) return { message: null }
  if (kind !== SIGNED) return null
  // The content is the first octet string behind the id of its own kind, 1.2.840.113549.1.7.1.
  const inner = bytes.indexOf(PKCS7, at + PKCS7.length)
  if (inner === -1) return null
  const wrapper = elementAt(bytes, inner + PKCS7.length + 1)
  if (wrapper === null || wrapper.tag !== 0xa0) return null
  const message = octetsAt(bytes, wrapper.start)
  return message === null || message.length === 0 ? null : { message }
}

type Element = { readonly tag: number; readonly start: number; readonly end: number | null }

/** `end` null: of indefinite length (X.690 section 8.1.3.6). */
function elementAt(bytes: Buffer, at: number): Element | null {
  const tag = bytes[at]
  const length = bytes[at + 1]
  if (tag === undefined || length === undefined) return null
  if (length < 0x80) return { tag, start: at + 2, end: at + 2 + length }
  if (length === 0x80) return { tag, start: at + 2, end: null }
  const count = length & 0x7f
  if (count > 4 || at + 2 + count > bytes.length) return null
  const start = at + 2 + count
  return { tag, start, end: start + bytes.readUIntBE(at + 2, count) }
}

const OCTETS = 0x04
const PIECES = 0x24

/** An octet string, whole or in pieces. What is cut short counts as far as it goes. */
function octetsAt(bytes: Buffer, at: number): Buffer | null {
  const whole = elementAt(bytes, at)
  if (whole === null) return null
  if (whole.tag === OCTETS) return bytes.subarray(whole.start, whole.end ?? bytes.length)
  if (whole.tag !== PIECES) return null
  const pieces: Buffer[] = []
  for (let next = whole.start; next < (whole.end ?? bytes.length); ) {
    const piece = elementAt(bytes, next)
    if (piece === null || piece.tag !== OCTETS || piece.end === null) break
    pieces.push(bytes.subarray(piece.start, piece.end))
    next = piece.end
  }
  return Buffer.concat(pieces)
}
