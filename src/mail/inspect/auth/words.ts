/** The results of auth/checks as sentences for people. */
import { plainLine } from '../../../message/header.ts'
import type { AuthResult } from '../../../message/verdict.ts'
import type { ArcCheck, Checks, DkimCheck, DmarcCheck, SpfCheck } from './checks.ts'
import type { Resinfo } from './fields.ts'

/** A name that strangers wrote, on one line. */
export function shown(name: string): string {
  return plainLine(name, 255)
}

/** Every check in the order in which it was made. */
export function resultsOf({ spf, dkim, arc, dmarc }: Checks, ip: string): readonly AuthResult[] {
  const results: AuthResult[] = spf.map((check) => ({
    method: 'spf',
    result: check.result,
    about: shown(check.domain),
    evidence: spfWords(check, ip),
  }))
  for (const check of dkim) {
    results.push({
      method: 'dkim',
      result: check.result,
      about: shown(check.domain),
      evidence: dkimWords(check),
    })
  }
  if (dkim.length === 0) {
    results.push({
      method: 'dkim',
      result: 'none',
      about: '',
      evidence: 'Nobody signed this mail.',
    })
  }
  if (arc !== null) {
    results.push({
      method: 'arc',
      result: arc.result,
      about: shown(arc.sealer),
      evidence: arcWords(arc),
    })
  }
  for (const check of dmarc) {
    results.push({
      method: 'dmarc',
      result: check.result,
      about: shown(check.domain),
      evidence: dmarcWords(check),
    })
  }
  return results
}

/** The same for `Authentication-Results` (RFC 8601 section 2.7, RFC 9989 section 9.1). */
export function resinfosOf({ spf, dkim, arc, dmarc }: Checks): readonly Resinfo[] {
  return [
    ...spf.map(({ identity, domain, result }): Resinfo => {
      return { method: 'spf', result, properties: [[`smtp.${identity}`, domain]] }
    }),
    ...dkim.map(({ domain, selector, result, mark }): Resinfo => {
      const properties = [
        ['header.d', domain],
        ['header.s', selector],
        ['header.b', mark],
      ] as const
      return { method: 'dkim', result, properties }
    }),
    ...(dkim.length > 0 ? [] : [{ method: 'dkim', result: 'none', properties: [] } as const]),
    ...(arc === null ? [] : [{ method: 'arc', result: arc.result, properties: [] } as const]),
    ...dmarc.map(({ domain, result, policy, policyDomain }): Resinfo => {
      const applied = policyDomain === '' ? '' : (policy ?? '')
      return {
        method: 'dmarc',
        result,
        properties: [
          ['header.from', domain],
          ['policy.dmarc', applied],
        ],
      }
    }),
  ]
}

export function spfWords(check: SpfCheck, ip: string): string {
  const { identity, domain, result, isOpen, relays } = check
  if (relays !== null) {
    return `Whether ${shown(domain)} names ${ip} as its server was not asked: the client is in ${relays}, a network of relays (sender.relays), which are servers of nobody else.`
  }
  const whose = identity === 'mailfrom' ? "The sender's domain" : 'The name that the client gave,'
  const name = identity === 'mailfrom' ? shown(domain) : `${shown(domain)},`
  switch (result) {
    case 'pass':
      return isOpen
        ? `${whose} ${name} lets every server of the world send for it.`
        : `${whose} ${name} names the servers that may send for it; ${ip} is one of them.`
    case 'fail':
      return `${whose} ${name} names the servers that may send for it; ${ip} is not one of them.`
    case 'softfail':
      return `${whose} ${name} names the servers that may send for it; ${ip} is probably not one of them.`
    case 'neutral':
      return `${whose} ${name} does not say whether ${ip} may send for it.`
    case 'none':
      return `${whose} ${name} does not name the servers that may send for it.`
    case 'temperror':
      return `${whose} ${name} names its servers by a record, or by one of others that it includes, for which the name servers had no answer.`
    default:
      return `${whose} ${name} names its servers by a record that cannot be used.`
  }
}

/** What mailauth says of a signature that is of no use, in our words. */
const DKIM_WORDS: Readonly<Record<string, string>> = {
  'body hash did not verify': 'the body was changed after it was signed',
  'bad signature': 'the header was changed after it was signed, or somebody else wrote it',
  expired: 'it has ended',
  'invalid expiration': 'it ends before it begins',
  'weak-key': 'its key is shorter than 1024 bits and can be found out',
  'weak-algorithm': 'it uses SHA-1, which can be forged',
  'From field not signed': 'it leaves the author open',
}

export function dkimWords({ domain, result, comment, isPartial, uncovered }: DkimCheck): string {
  const who = domain === '' ? 'Somebody' : shown(domain)
  if (result === 'pass') {
    if (uncovered > 0) {
      return `${who} signed only the beginning of this mail; the last ${uncovered} octets may be of anybody.`
    }
    return isPartial
      ? `${who} signed this mail as it is, and allows to write more below it.`
      : `${who} signed this mail, and nobody changed it.`
  }
  if (result === 'temperror') {
    return `${who} signed this mail, but the name servers had no answer for its key.`
  }
  const why = DKIM_WORDS[comment] ?? (comment === '' ? 'it is malformed' : plainLine(comment, 120))
  return `The signature of ${who} is of no use: ${why}.`
}

export function arcWords({ result, comment, sealer, isDoubtful }: ArcCheck): string {
  const who = sealer === '' ? 'a forwarder' : shown(sealer)
  if (result === 'pass') return `The seals of the forwarders hold; ${who} sealed last.`
  if (isDoubtful) return `The seal of ${who} could not be checked: a key was not to be had.`
  const why = comment === '' ? '' : `: ${plainLine(comment, 120)}`
  return `The seals of the forwarders, ${who} last, do not hold${why}.`
}

export function dmarcWords({ domain, result, policy, policyDomain }: DmarcCheck): string {
  const name = shown(domain)
  const asks =
    policy === 'reject'
      ? 'asks that such mail is refused'
      : policy === 'quarantine'
        ? 'asks that such mail is held'
        : 'asks for nothing'
  const from = policyDomain === domain || policyDomain === '' ? 'it' : shown(policyDomain)
  switch (result) {
    case 'pass':
      return `The author's domain ${name} vouches for this mail, by its servers or its signature.`
    case 'none':
      return `The author's domain ${name} does not say what becomes of mail that is forged.`
    case 'temperror':
      return `Whether the author's domain ${name} vouches for this mail is not known: the name servers failed.`
    case 'fail':
      return `Neither the servers nor a signature of the author's domain ${name} vouch for this mail; ${from} ${asks}.`
  }
}
