/**
 * What keys of ours are to sign of mail that goes out (RFC 6376): the hash of the body and the text
 * of the fields, both relaxed. The key itself stays in the main process.
 */
import { addressesIn } from '../../message/address.ts'
import { fieldValues, type Header } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import { relaxedField, relaxedValue } from '../../message/relaxed.ts'
import type { ToSign, Unsigned } from '../../message/verdict.ts'
import type { Inspector, Signer } from './look.ts'

/**
 * Fields that are signed when they are there, and those that must not be added later (signed once
 * more than they stand: section 8.15). Trace fields change on the way and are left out.
 */
const SIGNED = [
  ...['from', 'reply-to', 'subject', 'date', 'to', 'cc', 'in-reply-to', 'references'],
  ...['message-id', 'mime-version', 'content-type', 'content-transfer-encoding'],
  ...['list-id', 'list-unsubscribe', 'list-unsubscribe-post', 'sender'],
]
const ONCE_MORE = ['from', 'subject', 'date', 'to', 'cc', 'reply-to', 'content-type']

export const signing: Inspector = {
  name: 'signing',
  inspect: ({ mail, session, config, change }) => {
    if (!session.outbound) return []
    const keys = keysFor(mail.header, config.signing)
    if (keys.length === 0) return []
    const [bodyHash, names] = [bodyHashOf(mail), namesToSign(mail.header)]
    const toSign = keys.map((key): ToSign => {
      const { domain, selector } = key
      const unsigned = unsignedField(mail.header, 'DKIM-Signature: v=1;', key, names, bodyHash)
      return { kind: 'dkim', domain, selector, ...unsigned }
    })
    change({ toSign })
    return []
  },
}

/** Of the relaxed body, base64. */
export function bodyHashOf({ raw, header }: Mail): string {
  return new Bun.CryptoHasher('sha256').update(relaxedBody(raw, header.bodyStart)).digest('base64')
}

/** The keys of the author's domain. One author only. */
function keysFor(
  header: Header,
  signers: Readonly<Record<string, readonly Signer[]>>,
): readonly Signer[] {
  const authors = addressesIn(fieldValues(header, 'from').join(','), 2)
  const [author = ''] = authors
  if (authors.length !== 1) return []
  return keysOf(author.slice(author.lastIndexOf('@') + 1), signers)
}

/** The keys of a domain, else of the domain above it that has some. */
export function keysOf(
  name: string,
  signers: Readonly<Record<string, readonly Signer[]>>,
): readonly Signer[] {
  const labels = name.split('.')
  for (let from = 0; from < labels.length - 1; from += 1) {
    const domain = labels.slice(from).join('.')
    const keys = Object.hasOwn(signers, domain) ? signers[domain] : undefined
    if (keys !== undefined && keys.length > 0) return keys
  }
  return []
}

/** Names of all fields that a signature of ours covers, in the order of `h=`. */
export function namesToSign(header: Header): readonly string[] {
  return SIGNED.flatMap((name) => {
    const there = header.fields.filter((field) => field.name === name).length
    const more = ONCE_MORE.includes(name) ? 1 : 0
    return Array.from({ length: there + more }, () => name)
  })
}

/** `start`: its name and first tags. */
export function unsignedField(
  header: Header,
  start: string,
  { domain, selector, algorithm }: Signer,
  names: readonly string[],
  bodyHash: string,
): Unsigned {
  const field = [
    `${start} a=${algorithm}-sha256; c=relaxed/relaxed; d=${domain};`,
    ` s=${selector};`,
    ...folded(names),
    ` bh=${bodyHash};`,
    ' b=',
  ].join('\r\n')
  const text = [...signedFields(header, names), relaxedField(field)].join('\r\n')
  return { field, text }
}

/** `h=` in lines of at most 78 characters. */
function folded(names: readonly string[]): readonly string[] {
  const lines: string[] = [' h=']
  for (const [index, name] of names.entries()) {
    const word = `${name}${index === names.length - 1 ? ';' : ':'}`
    const line = lines.at(-1) ?? ''
    if (line.length + word.length > 76) lines.push(`  ${word}`)
    else lines[lines.length - 1] = line + word
  }
  return lines
}

/** Of fields with one name the last one first (section 5.4.2); what is not there is nothing. */
function signedFields(header: Header, names: readonly string[]): readonly string[] {
  const left = new Map<string, string[]>()
  for (const { name, value } of header.fields) {
    const values = left.get(name) ?? []
    values.push(value)
    left.set(name, values)
  }
  return names.flatMap((name) => {
    const value = left.get(name)?.pop()
    return value === undefined ? [] : [`${name}:${relaxedValue(value)}`]
  })
}

const [TAB, LF, CR, BLANK] = [9, 10, 13, 32]

/**
 * Section 3.4.4: blanks in a row are one, none at the end of a line, no empty lines at the end.
 * In one pass over the octets.
 */
export function relaxedBody(raw: Buffer, from: number): Buffer {
  const body = Buffer.allocUnsafe(raw.length - from + 2)
  let length = 0
  /** Behind the last line that is not empty. */
  let end = 0
  let isBlank = false
  for (let at = from; at < raw.length; at += 1) {
    const octet = raw[at] ?? 0
    if (octet === BLANK || octet === TAB) {
      isBlank = true
      continue
    }
    if (octet === CR && raw[at + 1] === LF) {
      isBlank = false
      body[length] = CR
      body[length + 1] = LF
      length += 2
      at += 1
      continue
    }
    if (isBlank) {
      body[length] = BLANK
      length += 1
      isBlank = false
    }
    body[length] = octet
    length += 1
    end = length
  }
  if (end === 0) return body.subarray(0, 0)
  // Its last line has a line end, whether it came with one or not.
  body[end] = CR
  body[end + 1] = LF
  return body.subarray(0, end + 2)
}
