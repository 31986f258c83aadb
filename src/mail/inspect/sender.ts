/**
 * Who sent it: SPF, DKIM, ARC and DMARC as findings, in words, and in `Authentication-Results`.
 * Weights are those of the field. What a domain asks for in DMARC is done by decide/, by the
 * names of DMARC_REJECT and DMARC_QUARANTINE.
 */
import { parseDomain } from '../../config/lines.ts'
import { NetworkIndex } from '../../config/networks.ts'
import { addressesIn, domainIn, normaliseDomain } from '../../message/address.ts'
import { fieldValues, type Header } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import {
  type ArcCheck,
  type Checks,
  checksOf,
  type DkimCheck,
  type DmarcCheck,
  heloDomain,
  SIGNATURES_MAX,
  type SpfCheck,
  sealerOf,
  senderDomain,
  trustedSealer,
} from './auth/checks.ts'
import { expectKeys, expectSpf, expectWalk, tagOf } from './auth/expect.ts'
import { forgedResults, resultsField } from './auth/fields.ts'
import { sealOf } from './auth/seal.ts'
import {
  arcWords,
  dkimWords,
  dmarcWords,
  resinfosOf,
  resultsOf,
  shown,
  spfWords,
} from './auth/words.ts'
import { contactFindings } from './contact.ts'
import type { Inspector, Look } from './look.ts'
import { mailboxesIn } from './mailboxes.ts'

/** Domains of authors that are looked at. A real mail has one; impersonation.ts holds a crowd. */
const AUTHORS_MAX = 10
/** Addresses of From that are read. */
const ADDRESSES_MAX = 100
/** Signatures that one finding tells of. */
const TOLD_MAX = 3

export const sender: Inspector = {
  name: 'sender',
  inspect: (look) => {
    // What our own people send is theirs to sign; it comes from where no record names it.
    if (look.session.outbound) return []
    const authors = authorDomains(look.mail.header)
    expect(look, authors)
    firstContact(look, false)
    return look.names.questions.length > 0 ? [] : judge(look, authors)
  },
}

/** Nothing of who has no address, is of ours, or sends a notification. */
function firstContact(look: Look, isProven: boolean): readonly Finding[] {
  const { mail, session, config } = look
  if (config.settings['sender.firstContact'] === 0 || session.sender === '') return []
  const [author] = addressesIn(fieldValues(mail.header, 'from').join(','), ADDRESSES_MAX)
  if (author === undefined || isOf(domainIn(author), config.domains)) return []
  return contactFindings(look, author, isProven)
}

/** Domains of From, in its order. Where nobody can read it, every domain that a reader may see. */
function authorDomains(header: Header): readonly string[] {
  const from = fieldValues(header, 'from')
  const addresses = addressesIn(from.join(','), ADDRESSES_MAX)
  const strict = addresses.map((address) => address.slice(address.lastIndexOf('@') + 1))
  const boxes = from.flatMap((field) => mailboxesIn(field).boxes)
  const isPlain = boxes.length > 0 && boxes.every(({ address }) => address !== '')
  const seen = isPlain
    ? []
    : [
        ...from
          .join(' ')
          .toLowerCase()
          .matchAll(/@([a-z0-9.-]+\.[a-z0-9-]*[a-z])/g),
      ]
  const found = [...strict, ...seen.flatMap(([, domain = '']) => normaliseDomain(domain) ?? [])]
  return [...new Set(found)].slice(0, AUTHORS_MAX)
}

/** The network of relays that has the client: SPF would tell of them, not of who sent it. */
function relaysOf({ session, config }: Look): string | null {
  const networks = config.settings['sender.relays']
  const index = relayIndexes.get(networks) ?? new NetworkIndex(networks)
  relayIndexes.set(networks, index)
  return index.find(session.clientIp)
}

const relayIndexes = new WeakMap<readonly string[], NetworkIndex>()

/** Asks for all that the checks will surely want, in as few rounds as can be. */
function expect(look: Look, authors: readonly string[]): void {
  const { mail, session, names } = look
  const { header } = mail
  const from = senderDomain(session)
  const helo = heloDomain(session)
  expectKeys(names, header, SIGNATURES_MAX)
  for (const domain of authors) expectWalk(names, domain)
  const signers = fieldValues(header, 'dkim-signature')
    .slice(0, SIGNATURES_MAX)
    .map((field) => tagOf(field, 'd')?.toLowerCase() ?? null)
  for (const domain of [from ?? helo, ...signers]) {
    if (domain !== null && authors.some((author) => related(author, domain))) {
      expectWalk(names, domain)
    }
  }
  if (relaysOf(look) !== null) return
  if (from !== null) expectSpf(names, from, session.clientIp)
  if (helo !== null) expectSpf(names, helo, session.clientIp)
}

/** Whether they may be of one organisation: the last two labels are the same. */
function related(a: string, b: string): boolean {
  const end = (name: string): string => name.split('.').slice(-2).join('.')
  return a !== b && end(a) === end(b)
}

async function judge(look: Look, authors: readonly string[]): Promise<readonly Finding[]> {
  const { mail, session, config, names } = look
  const relays = relaysOf(look)
  const checks = await checksOf(mail, session, names, authors, relays)
  if (names.questions.length > 0) return []
  const sealers = new Set(
    config.settings['sender.sealers'].flatMap((line) => parseDomain(line) ?? []),
  )
  const judged = checks.dmarc.map((check) => dmarcJudged(check, checks.arc, sealers))
  refuseToGuess(checks, judged, config.domains, sealers)
  const isProven =
    fieldValues(mail.header, 'from').length === 1 &&
    judged.length < AUTHORS_MAX &&
    judged.every(({ vouched }) => vouched)
  look.note({
    authentication: resultsOf(checks, session.clientIp),
    authenticated: isProven ? authors : [],
  })
  const results = resultsField(config.authority, resinfosOf(checks))
  look.change({
    cuts: forgedResults(mail.raw, mail.header, config),
    fields: results,
    toSign: config.settings['sender.seal'] === 'on' ? sealOf(look, checks.arc, results) : [],
  })
  return [
    ...checks.spf.flatMap((check) => spfFindings(check, session.clientIp)),
    ...dkimFindings(checks.dkim),
    ...arcFindings(checks.arc, sealers),
    ...judged.flatMap(({ finding }) => finding ?? []),
    ...ownDomainFindings(judged, config.domains, session.clientIp, relays),
    ...firstContact(look, isProven),
  ]
}

type Judged = {
  readonly check: DmarcCheck
  /** Somebody who may speaks for the domain. */
  readonly vouched: boolean
  readonly finding: Finding | null
}

function dmarcJudged(
  check: DmarcCheck,
  arc: ArcCheck | null,
  sealers: ReadonlySet<string>,
): Judged {
  const evidence = dmarcWords(check)
  const by = arc?.result === 'pass' ? trustedSealer(arc, sealers, check.domain) : null
  switch (check.result) {
    case 'pass':
      return { check, vouched: true, finding: { rule: 'DMARC_PASS', score: -0.5, evidence } }
    case 'none':
      return { check, vouched: check.vouching.length > 0 || by !== null, finding: null }
    case 'temperror':
    case 'fail':
      if (by !== null) {
        const seen = `The trusted forwarder ${shown(by)} saw the author's domain ${shown(check.domain)} vouch for this mail, which its way here has changed.`
        return { check, vouched: true, finding: { rule: 'ARC_TRUSTED', score: -1, evidence: seen } }
      }
      return { check, vouched: false, finding: failed(check, evidence) }
  }
}

function failed({ result, policy }: DmarcCheck, evidence: string): Finding {
  if (result === 'temperror') return { rule: 'DMARC_TEMPERROR', score: 0, evidence }
  if (policy === 'reject') return { rule: 'DMARC_REJECT', score: 4, evidence }
  if (policy === 'quarantine') return { rule: 'DMARC_QUARANTINE', score: 1.5, evidence }
  return { rule: 'DMARC_NONE', score: 0.1, evidence }
}

/**
 * Who keeps the name servers from answering must not pass as somebody else: where an answer
 * decides whether a mail is forged, there is no verdict without it. A domain that asks for
 * nothing, and is not ours, loses nothing by it.
 * @throws Error
 */
function refuseToGuess(
  { arc, spf, dkim }: Checks,
  judged: readonly Judged[],
  ours: readonly string[],
  sealers: ReadonlySet<string>,
): void {
  // A chain of nobody who is trusted would have changed nothing.
  const isSealDoubtful =
    arc?.isDoubtful === true && arc.sets.some((set) => sealers.has(sealerOf(set)))
  for (const { check, vouched } of judged) {
    if (vouched) continue
    const isOurs = isOf(check.domain, ours)
    const matters = isOurs || check.policy !== 'none'
    const isHidden =
      check.result === 'temperror' ||
      isSealDoubtful ||
      (isOurs && [...spf, ...dkim].some(({ result }) => result === 'temperror'))
    if (matters && isHidden) {
      throw new Error(`the name servers failed, so ${shown(check.domain)} may be forged or not`)
    }
  }
}

function spfFindings(check: SpfCheck, ip: string): readonly Finding[] {
  const evidence = spfWords(check, ip)
  if (check.identity === 'helo') {
    return check.result === 'fail' ? [{ rule: 'SPF_HELO_FAIL', score: 0.5, evidence }] : []
  }
  switch (check.result) {
    case 'pass':
      return check.isOpen
        ? [{ rule: 'SPF_ALL', score: 4, evidence }]
        : [{ rule: 'SPF_PASS', score: -0.2, evidence }]
    case 'fail':
      return [{ rule: 'SPF_FAIL', score: 1, evidence }]
    case 'softfail':
      return [{ rule: 'SPF_SOFTFAIL', score: 0.5, evidence }]
    case 'temperror':
      return [{ rule: 'SPF_TEMPERROR', score: 0, evidence }]
    case 'permerror':
      return [{ rule: 'SPF_PERMERROR', score: 0, evidence }]
    default:
      return []
  }
}

function dkimFindings(dkim: readonly DkimCheck[]): readonly Finding[] {
  const passing = dkim.filter(({ result }) => result === 'pass')
  const late = dkim.filter(({ result }) => result === 'temperror')
  const useless = dkim.filter((check) => !passing.includes(check) && !late.includes(check))
  const open = passing.filter(({ isPartial }) => isPartial)
  const finding = (
    rule: string,
    score: number,
    checks: readonly DkimCheck[],
  ): readonly Finding[] =>
    checks.length === 0
      ? []
      : [{ rule, score, evidence: checks.slice(0, TOLD_MAX).map(dkimWords).join(' ') }]
  return [
    ...finding('DKIM_VALID', -0.2, passing),
    // Lists break the signature of the author and add their own: that alone says nothing bad.
    ...finding('DKIM_INVALID', passing.length > 0 ? 0 : 1, useless),
    ...finding('DKIM_TEMPERROR', 0, late),
    ...finding('DKIM_PARTIAL', open.some(({ uncovered }) => uncovered > 0) ? 2 : 0.1, open),
  ]
}

function arcFindings(arc: ArcCheck | null, sealers: ReadonlySet<string>): readonly Finding[] {
  if (arc === null || arc.result === 'none') return []
  const evidence = arcWords(arc)
  if (arc.result !== 'pass') {
    return [{ rule: 'ARC_INVALID', score: arc.isDoubtful ? 0 : 1, evidence }]
  }
  // Everybody can seal: it counts for those only who are trusted, and above.
  const known = sealers.has(arc.sealer) ? '' : ' Nobody here said that it is to be trusted.'
  return [{ rule: 'ARC_VALID', score: 0, evidence: `${evidence}${known}` }]
}

/** Our own name in From, from outside, and nobody who may vouches for it. */
function ownDomainFindings(
  judged: readonly Judged[],
  ours: readonly string[],
  ip: string,
  relays: string | null,
): readonly Finding[] {
  const own = judged.find(({ check, vouched }) => !vouched && isOf(check.domain, ours))
  if (own === undefined) return []
  const name = own.check.domain
  const isBelow = !ours.includes(name)
  const why =
    relays === null
      ? `${ip} is none of its servers and no signature of it holds`
      : `no signature of it holds, and ${ip} only relays (sender.relays)`
  const evidence = `The author is said to be of ${shown(name)}, ${isBelow ? 'below a domain of ours' : 'a domain of ours'}, but ${why}.`
  return [{ rule: 'OWN_DOMAIN_SPOOF', score: isBelow ? 4 : 8, evidence }]
}

/** One of our domains, or a name below one. */
function isOf(domain: string, ours: readonly string[]): boolean {
  return ours.some((our) => domain === our || domain.endsWith(`.${our}`))
}
