/**
 * First contact as a question: whether anybody at the recipients' domains has had mail of this
 * author before. An inspector asks it as it asks for a name, and the main process answers out of
 * history.ts. The name lies under `.invalid`, which no server has (RFC 6761 section 6.4).
 */
import type { DnsAnswer, DnsQuestion } from '../../base/names.ts'
import { some } from '../../base/prose.ts'
import { domainIn } from '../../message/address.ts'
import { plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import { type Contact, contactOf } from '../../store/sightings.ts'
import type { Look } from './look.ts'

const SUFFIX = '.contact.invalid'
/** Domains of recipients that are asked about; a mail nearly always has one. */
const DOMAINS_MAX = 10
/** Of them are named. */
const NAMED_MAX = 3
/** UNKNOWN_SENDER of Rspamd weighs 0.5: both together, so that neither holds a mail. */
const SCORE = 0.2
const SCORE_DOMAIN = 0.3

/** Who of the author's side wrote to one domain before; it is the only record of the answer. */
export type Acquaintance = 'address' | 'domain' | 'nobody'

/** What is asked: of mail that came before `receivedMs`. */
export type ContactQuestion = Contact & { readonly receivedMs: number }

export function questionOf({ receivedMs, address, domain, anybody }: ContactQuestion): DnsQuestion {
  const words = [receivedMs, address, domain, anybody].map((number) => number.toString(16))
  return { name: `${words.join('.')}${SUFFIX}`, type: 'TXT' }
}

/** Null: it is about a name. */
export function askedContact({ name }: DnsQuestion): ContactQuestion | null {
  if (!name.endsWith(SUFFIX)) return null
  const words = name.slice(0, -SUFFIX.length).split('.')
  const [receivedMs = 0, address = 0, domain = 0, anybody = 0] = words.map((word) =>
    Number.parseInt(word, 16),
  )
  return { receivedMs, address, domain, anybody }
}

/**
 * What is to be said of `author`, an address in lower case; empty while the answers are not here.
 * `isProven`: its domain vouches for this mail.
 */
export function contactFindings(
  { session, names }: Pick<Look, 'session' | 'names'>,
  author: string,
  isProven: boolean,
): readonly Finding[] {
  const receivedMs = session.receivedMs ?? 0
  const domains = [...new Set(session.recipients.map(domainIn))].slice(0, DOMAINS_MAX)
  const answers = domains.map(
    (domain) =>
      [domain, names.ask(questionOf({ receivedMs, ...contactOf(author, domain) }))] as const,
  )
  const said = answers.map(([, answer]) => acquaintance(answer))
  if (said.includes('address')) return []
  const failed = answers.flatMap(([, answer]) => (answer?.status === 'failed' ? answer.cause : []))
  const where = listed(answers.flatMap(([domain, answer]) => (isSilent(answer) ? [] : domain)))
  const who = plainLine(author, 255)
  if (failed.length > 0) {
    const evidence = `Whether anybody at ${where} has had mail from ${who} before is not known: ${failed[0]}.`
    return [{ rule: 'FIRST_CONTACT_UNKNOWN', score: 0, evidence }]
  }
  if (where === '') return []
  const proof = isProven ? 'Its domain vouches for this one.' : 'Nobody vouches for this one.'
  const evidence = `Nobody at ${where} has had mail from ${who} before. ${proof}`
  const first: Finding = { rule: 'FIRST_CONTACT', score: SCORE, evidence }
  if (said.includes('domain')) return [first]
  const more = `Nobody at ${where} has had mail from any address of ${domainIn(who)} before.`
  return [first, { rule: 'FIRST_CONTACT_DOMAIN', score: SCORE_DOMAIN, evidence: more }]
}

function acquaintance(answer: DnsAnswer | null): string | null {
  return answer?.status === 'found' ? (answer.records[0] ?? null) : null
}

/** Not answered yet, or too little history to say it. */
function isSilent(answer: DnsAnswer | null): boolean {
  return answer === null || answer.status === 'absent'
}

function listed(domains: readonly string[]): string {
  return some(
    domains.map((domain) => plainLine(domain, 255)),
    NAMED_MAX,
  )
}
