/** The arguments of MAIL and RCPT (RFC 5321 section 4.1.1, 1870, 6152, 6531, 3461). Pure. */
import { type Address, readPath } from '../../message/address.ts'
import { type Reply, reply } from '../../message/reply.ts'

export type MailArguments = {
  readonly sender: Address | null
  readonly sizeBytes: number
  readonly eightBit: boolean
  readonly smtpUtf8: boolean
  readonly ret: 'FULL' | 'HDRS' | null
  readonly envid: string | null
}

export type RcptArguments = {
  readonly recipient: Address | null
  readonly notify: string | null
  readonly orcpt: string | null
}

/** RFC 3461 section 4: xtext. */
const XTEXT = /^(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*$/
const NOTIFY_WORDS = new Set(['NEVER', 'SUCCESS', 'FAILURE', 'DELAY'])

const syntax = (text: string): Reply => reply(501, '5.5.4', text)

/** The text after `MAIL FROM:`, or a refusal. */
export function readMail(text: string, isExtended: boolean): MailArguments | Reply {
  const path = readPath(text.trimStart())
  if (path === null) return reply(501, '5.1.7', 'Syntax: MAIL FROM:<address>')
  const parameters = readParameters(path.rest)
  if (parameters === null || (!isExtended && parameters.size > 0)) {
    return reply(501, '5.5.4', 'Unknown text after the address')
  }
  let sizeBytes = 0
  let eightBit = false
  let smtpUtf8 = false
  let ret: MailArguments['ret'] = null
  let envid: string | null = null
  for (const [name, value] of parameters) {
    switch (name) {
      case 'SIZE':
        if (value === null || !/^\d{1,20}$/.test(value))
          return syntax('SIZE takes a number of octets')
        sizeBytes = Number(value)
        break
      case 'BODY':
        if (value?.toUpperCase() !== '7BIT' && value?.toUpperCase() !== '8BITMIME') {
          return syntax('BODY takes 7BIT or 8BITMIME')
        }
        eightBit = value.toUpperCase() === '8BITMIME'
        break
      case 'SMTPUTF8':
        if (value !== null) return syntax('SMTPUTF8 takes no value')
        smtpUtf8 = true
        break
      case 'RET':
        if (value?.toUpperCase() !== 'FULL' && value?.toUpperCase() !== 'HDRS') {
          return syntax('RET takes FULL or HDRS')
        }
        ret = value.toUpperCase() === 'FULL' ? 'FULL' : 'HDRS'
        break
      case 'ENVID':
        if (!isXtext(value, 100)) return syntax('ENVID takes at most 100 characters of xtext')
        envid = value
        break
      default:
        return reply(555, '5.5.4', 'Unknown parameter')
    }
  }
  if (path.address?.isUtf8 === true && !smtpUtf8) {
    return reply(553, '5.6.7', 'This address needs SMTPUTF8')
  }
  return { sender: path.address, sizeBytes, eightBit, smtpUtf8, ret, envid }
}

/** The text after `RCPT TO:`, or a refusal. */
export function readRcpt(
  text: string,
  isExtended: boolean,
  smtpUtf8: boolean,
): RcptArguments | Reply {
  const path = readPath(text.trimStart())
  if (path === null) return reply(501, '5.1.3', 'Syntax: RCPT TO:<address>')
  const parameters = readParameters(path.rest)
  if (parameters === null || (!isExtended && parameters.size > 0)) {
    return reply(501, '5.5.4', 'Unknown text after the address')
  }
  let notify: string | null = null
  let orcpt: string | null = null
  for (const [name, value] of parameters) {
    if (name === 'NOTIFY') {
      notify = value?.toUpperCase() ?? ''
      const words = notify.split(',')
      const alone = words.includes('NEVER') && words.length > 1
      if (alone || !words.every((word) => NOTIFY_WORDS.has(word))) {
        return syntax('NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY')
      }
    } else if (name === 'ORCPT') {
      const isUtf8Type = value !== null && /^utf-8;/i.test(value)
      const rest = value?.slice((value.indexOf(';') ?? -1) + 1) ?? ''
      const valid = value !== null && /^[A-Za-z0-9-]+;/.test(value) && value.length <= 500
      if (!valid || !(isUtf8Type ? !/[\x00-\x20\x7f]/.test(rest) : isXtext(rest, 500))) {
        return syntax('ORCPT takes type;xtext')
      }
      orcpt = value
    } else return reply(555, '5.5.4', 'Unknown parameter')
  }
  if (path.address?.isUtf8 === true && !smtpUtf8) {
    return reply(553, '5.6.7', 'This address needs SMTPUTF8')
  }
  return { recipient: path.address, notify, orcpt }
}

/** Xtext without an encoded control character: it would end a line of a DSN (CVE-2020-28026). */
function isXtext(value: string | null, lengthMax: number): value is string {
  if (value === null || value.length > lengthMax || !XTEXT.test(value)) return false
  return !/\+(?:[01][0-9A-F]|7F)/.test(value)
}

/** ` NAME=value NAME …` in upper-case names; null when malformed or twice the same. */
function readParameters(text: string): ReadonlyMap<string, string | null> | null {
  const found = new Map<string, string | null>()
  if (text === '') return found
  if (!text.startsWith(' ')) return null
  for (const word of text.split(' ')) {
    if (word === '') continue
    const match = /^([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=][^\x00-\x20]*))?$/.exec(word)
    const name = match?.[1]?.toUpperCase()
    if (match === null || name === undefined || found.has(name)) return null
    found.set(name, match[2] ?? null)
  }
  return found
}

/** The line without its CRLF; null when it has a bare CR, a bare LF or a NUL. */
export function readCommandLine(bytes: Buffer): { readonly text: string } | 'not UTF-8' | null {
  if (bytes.length < 2 || bytes[bytes.length - 2] !== 13) return null
  const line = bytes.subarray(0, bytes.length - 2)
  let ascii = true
  for (const octet of line) {
    if (octet === 13 || octet === 0) return null
    if (octet > 0x7f) ascii = false
  }
  if (ascii) return { text: line.toString('latin1') }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(line) }
  } catch {
    return 'not UTF-8'
  }
}
