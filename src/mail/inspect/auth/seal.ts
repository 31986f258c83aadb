/**
 * What a key of ours is to seal (ARC, RFC 8617 section 5.1): our results, the mail as it goes on,
 * and the sets before ours. Who gets the mail next can see what was proven when it came here.
 */
import { normaliseDomain } from '../../../message/address.ts'
import { fieldValues, type Header } from '../../../message/header.ts'
import { relaxedValue } from '../../../message/relaxed.ts'
import type { ToSign } from '../../../message/verdict.ts'
import type { Look, Signer } from '../look.ts'
import { bodyHashOf, keysOf, namesToSign, unsignedField } from '../signing.ts'
import { type ArcCheck, SIGNATURES_MAX } from './checks.ts'
import { tagOf } from './expect.ts'

/** Section 4.2.1. */
const INSTANCE_MAX = 50
/** Of one set, in the order in which a seal goes over them (section 5.1.1). */
const SET = ['arc-authentication-results', 'arc-message-signature', 'arc-seal']

/** `results`: our whole `Authentication-Results`. Empty: this mail gets no seal of ours. */
export function sealOf(
  { mail, session, config }: Look,
  arc: ArcCheck | null,
  results: string,
): readonly ToSign[] {
  const signer = signerOf(session.recipients, config.signing)
  const place = signer === null ? null : placeOf(mail.header, arc)
  if (signer === null || place === null) return []
  const { instance, chain, before } = place
  const { domain, selector, algorithm } = signer
  const signatures = fieldValues(mail.header, 'dkim-signature').slice(0, SIGNATURES_MAX)
  const names = [...namesToSign(mail.header), ...signatures.map(() => 'dkim-signature')]
  const start = `ARC-Message-Signature: i=${instance};`
  const ours = `i=${instance};${results.slice(results.indexOf(':') + 1).trimEnd()}`
  return [
    {
      kind: 'arc',
      domain,
      selector,
      results: `ARC-Authentication-Results: ${ours}`,
      message: unsignedField(mail.header, start, signer, names, bodyHashOf(mail)),
      seal: {
        field: `ARC-Seal: i=${instance}; a=${algorithm}-sha256; cv=${chain}; d=${domain};\r\n s=${selector};\r\n b=`,
        text: `${before}arc-authentication-results:${relaxedValue(ours)}\r\n`,
      },
    },
  ]
}

/** Of the first recipient whose domain has one. A set has one signature: the one that all can check. */
function signerOf(
  recipients: readonly string[],
  signers: Readonly<Record<string, readonly Signer[]>>,
): Signer | null {
  for (const recipient of recipients) {
    const domain = normaliseDomain(recipient.slice(recipient.lastIndexOf('@') + 1))
    const keys = domain === null ? [] : keysOf(domain, signers)
    const signer = keys.find(({ algorithm }) => algorithm === 'rsa') ?? keys[0]
    if (signer !== undefined) return signer
  }
  return null
}

type Place = {
  readonly instance: number
  readonly chain: 'none' | 'pass' | 'fail'
  /** The sets before ours, relaxed, as our seal covers them. */
  readonly before: string
}

/**
 * Where our set goes. Null: nowhere. Nothing follows a seal that says `fail` (section 5.1), the
 * 50th, or a chain that the name servers kept us from checking: that one may be good, and a seal
 * of ours that says `fail` would end it.
 */
function placeOf(header: Header, arc: ArcCheck | null): Place | null {
  const sets = new Map<number, Map<string, string>>()
  for (const { name, value } of header.fields) {
    if (!SET.includes(name)) continue
    const instance = Number(tagOf(value, 'i') ?? 0)
    if (!Number.isInteger(instance)) continue
    const set = sets.get(instance) ?? new Map<string, string>()
    sets.set(instance, set.set(name, value))
  }
  if (sets.size === 0) return { instance: 1, chain: 'none', before: '' }
  const highest = Math.max(...sets.keys())
  const said = tagOf(sets.get(highest)?.get('arc-seal') ?? '', 'cv')?.toLowerCase()
  if (arc === null || arc.isDoubtful || highest >= INSTANCE_MAX || said === 'fail') return null
  const instance = highest + 1
  // Section 5.1.2: of a broken chain nothing is vouched for but that it is broken.
  if (arc.result !== 'pass') return { instance, chain: 'fail', before: '' }
  const before: string[] = []
  for (let each = 1; each <= highest; each += 1) {
    for (const name of SET) {
      const value = sets.get(each)?.get(name)
      if (value === undefined) return null
      before.push(`${name}:${relaxedValue(value)}\r\n`)
    }
  }
  return { instance, chain: 'pass', before: before.join('') }
}
