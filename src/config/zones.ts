/** Lists in the DNS (RFC 5782): under which name something is looked up, and what answers weigh. Pure. */
import { isIPv4, isIPv6 } from 'node:net'
import { groupsOf } from '../base/address.ts'
import { type ListZone, numberOf } from './lines.ts'

/** What a list says of something that is on it. */
export type Listing = {
  /** Of all ranges that an answer falls into, each once. */
  readonly score: number
  /** Answers, in order. */
  readonly codes: readonly string[]
}

/**
 * The name of an address in the zone of a list or of the reverse tree: octets or nibbles, last
 * first (RFC 5782 section 2.1, 2.4). Null: no address.
 */
export function reversed(ip: string): string | null {
  if (isIPv4(ip)) return ip.split('.').toReversed().join('.')
  if (!isIPv6(ip)) return null
  const groups = groupsOf(ip).map((group) => group.padStart(4, '0'))
  return [...groups.join('')].toReversed().join('.')
}

/** Where the name of an address stands (RFC 1035 section 3.5, RFC 3596 section 2.5). */
export function pointerOf(ip: string): string | null {
  const name = reversed(ip)
  if (name === null) return null
  return `${name}.${isIPv4(ip) ? 'in-addr' : 'ip6'}.arpa`
}

/** Null: no answer has a weight. What lies outside 127.0.0.0/8 is no answer of a list. */
export function weigh({ weights }: ListZone, answers: readonly string[]): Listing | null {
  const codes = answers.filter(isListed)
  const hit = weights.filter(({ from, to }) =>
    codes.some((code) => numberOf(code) >= from && numberOf(code) <= to),
  )
  if (hit.length === 0) return null
  const score = hit.reduce((sum, weight) => sum + weight.score, 0)
  return { score: Math.round(Math.max(-100, Math.min(100, score)) * 100) / 100, codes }
}

/** As findings name a list: `DNSBL_ZEN_EXAMPLE_ORG`. */
export function ruleOf(prefix: string, zone: string): string {
  return `${prefix}_${zone.toUpperCase().replace(/[^A-Z0-9]+/g, '_')}`
}

/** RFC 5782 section 2.3. */
function isListed(answer: string): boolean {
  return answer.startsWith('127.') && isIPv4(answer)
}
