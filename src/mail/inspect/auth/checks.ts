/**
 * Who sent a mail, by SPF (RFC 7208), DKIM (RFC 6376, 8301, 8463), ARC (RFC 8617) and DMARC
 * (RFC 9989). Results only, no weights. A check that the name servers kept from its end says
 * `temperror`, and never `fail` or `pass`.
 */
import { fieldValues } from '../../../message/header.ts'
import type { Mail } from '../../../message/mime.ts'
import type { Known, SessionFacts } from '../look.ts'
import { hasNoPolicy, hasNoSpf } from './expect.ts'
import { fieldSpans, without } from './fields.ts'
import { type ArcSet, type DkimResult, type DmarcResponse, mailauth } from './library.ts'
import { Asking } from './resolve.ts'

/** Signatures that are looked at; further ones are as if they were not there. */
export const SIGNATURES_MAX = 10
/** RFC 8301 section 3.2. */
const KEY_BITS_MIN = 1_024

export type SpfCheck = {
  readonly identity: 'mailfrom' | 'helo'
  readonly domain: string
  readonly result: string
  /** Its record says `+all`: anybody may send. */
  readonly isOpen: boolean
  /** Why it was not asked: the network of relays (`sender.relays`) that has the client; null: it was. */
  readonly relays: string | null
}

export type DkimCheck = {
  readonly domain: string
  readonly selector: string
  readonly result: string
  readonly comment: string
  /** First characters of the signature: which one is meant (RFC 6008). */
  readonly mark: string
  /** It covers only a part of the body (`l=`). */
  readonly isPartial: boolean
  /** Octets of the body behind that part. */
  readonly uncovered: number
}

export type ArcCheck = {
  readonly result: string
  readonly comment: string
  /** Who sealed last; empty: nobody can tell. */
  readonly sealer: string
  /** The seals could not be looked at: the name servers failed. */
  readonly isDoubtful: boolean
  readonly sets: readonly ArcSet[]
}

export type DmarcCheck = {
  readonly domain: string
  readonly result: 'pass' | 'fail' | 'none' | 'temperror'
  /** What the domain asks for; `none` also when it published nothing; null: nobody knows. */
  readonly policy: string | null
  /** Where the record was found; empty without one. */
  readonly policyDomain: string
  /** Passing domains that speak for it. Without a record: itself and its parents. */
  readonly vouching: readonly string[]
}

export type Checks = {
  readonly spf: readonly SpfCheck[]
  readonly dkim: readonly DkimCheck[]
  /** Null: no seal. */
  readonly arc: ArcCheck | null
  /** One for each author domain. */
  readonly dmarc: readonly DmarcCheck[]
}

/** `authors`: the domains of From. `relays`: as SpfCheck. */
export async function checksOf(
  mail: Mail,
  session: SessionFacts,
  names: Known,
  authors: readonly string[],
  relays: string | null = null,
): Promise<Checks> {
  const [spf, signed] = await Promise.all([
    spfChecks(session, names, relays),
    signatureChecks(mail, session, names),
  ])
  const dmarc = await Promise.all(
    authors.map((domain) => dmarcCheck(domain, names, spf, signed.dkim)),
  )
  return { spf, ...signed, dmarc }
}

/** The name that a client gave itself, when it can have an SPF record. */
export function heloDomain({ greeting }: SessionFacts): string | null {
  const name = greeting.toLowerCase().replace(/\.$/, '')
  return /^(?=.{1,253}$)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.[a-z][a-z0-9-]*$/.test(name) ? name : null
}

export function senderDomain({ sender }: SessionFacts): string | null {
  const domain = sender.slice(sender.lastIndexOf('@') + 1).toLowerCase()
  return sender.includes('@') && domain !== '' ? domain : null
}

async function spfChecks(
  session: SessionFacts,
  names: Known,
  relays: string | null,
): Promise<readonly SpfCheck[]> {
  const helo = heloDomain(session)
  const check = async (identity: SpfCheck['identity'], from: string): Promise<SpfCheck> => {
    const about = (from === '' ? helo : senderDomain(session)) ?? ''
    if (relays !== null || hasNoSpf(names, about)) {
      return { identity, domain: about, result: 'none', isOpen: false, relays }
    }
    const { spf } = await mailauth()
    const { domain, status, rr } = await spf({
      sender: from,
      ip: session.clientIp,
      helo: session.greeting,
      mta: 'postern',
      resolver: new Asking(names).resolve,
      strict: true,
    })
    const isOpen = status.result === 'pass' && / \+?all(?: |$)/i.test(rr ?? '')
    return { identity, domain, result: status.result, isOpen, relays }
  }
  if (session.sender === '') return helo === null ? [] : [await check('helo', '')]
  const domain = senderDomain(session)
  return Promise.all([
    ...(domain === null ? [] : [check('mailfrom', session.sender)]),
    ...(helo === null || helo === domain ? [] : [check('helo', '')]),
  ])
}

async function signatureChecks(
  mail: Mail,
  session: SessionFacts,
  names: Known,
): Promise<Pick<Checks, 'dkim' | 'arc'>> {
  const { header } = mail
  const signatures = fieldValues(header, 'dkim-signature').length
  const isSealed = header.fields.some(({ name }) => name.startsWith('arc-'))
  if (signatures === 0 && !isSealed) return { dkim: [], arc: null }
  const { dkimVerify, arc } = await mailauth()
  const { results, arc: data } = await dkimVerify(fewSigned(mail, signatures), {
    resolver: new Asking(names).resolve,
    strict: true,
    minBitLength: KEY_BITS_MIN,
    curTime: new Date(session.receivedMs ?? 0),
    sender: session.sender,
  })
  const dkim = signatures === 0 ? [] : results.slice(0, SIGNATURES_MAX).map(dkimCheck)
  if (!isSealed) return { dkim, arc: null }
  const asking = new Asking(names)
  const { status } = await arc(data, {
    resolver: asking.resolve,
    strict: true,
    minBitLength: KEY_BITS_MIN,
  })
  const sets = data.chain === false ? [] : data.chain
  const late = data.lastEntry?.messageSignature?.status.result === 'temperror'
  return {
    dkim,
    arc: {
      result: status.result,
      comment: status.comment ?? '',
      sealer: sealerOf(sets.at(-1)),
      isDoubtful: status.result === 'fail' && (late || asking.failed.length > 0),
      sets,
    },
  }
}

/** A thousand signatures, each over another part of the body, would keep a core busy for minutes. */
function fewSigned({ raw, header }: Mail, signatures: number): Buffer {
  if (signatures <= SIGNATURES_MAX) return raw
  const spans = fieldSpans(raw, header.bodyStart).filter(({ name }) => name === 'dkim-signature')
  return without(
    raw,
    spans.slice(SIGNATURES_MAX).map(({ start, end }) => [start, end - start]),
  )
}

function dkimCheck(result: DkimResult): DkimCheck {
  const { status } = result
  const rules = Object.values(status.policy ?? {}).join(' ')
  return {
    domain: (result.signingDomain ?? '').toLowerCase(),
    selector: (result.selector ?? '').toLowerCase(),
    result: status.result,
    comment: rules === '' ? (status.comment ?? '') : rules,
    mark: (result.signature ?? '').slice(0, 8),
    isPartial: result.canonBodyLengthLimited === true,
    uncovered: status.underSized ?? 0,
  }
}

export function sealerOf(set: ArcSet | undefined): string {
  const domain = set?.['arc-seal'].parsed?.['d']?.value
  return typeof domain === 'string' ? domain.toLowerCase() : ''
}

async function dmarcCheck(
  domain: string,
  names: Known,
  spf: readonly SpfCheck[],
  dkim: readonly DkimCheck[],
): Promise<DmarcCheck> {
  const passing = [...spfDomains(spf, ['pass']), ...dkimDomains(dkim, ['pass'])]
  const none: DmarcCheck = {
    domain,
    result: 'none',
    policy: 'none',
    policyDomain: '',
    vouching: passing.filter((each) => isParent(each, domain)),
  }
  if (hasNoPolicy(names, domain)) return none
  const { evaluateDmarc } = await mailauth()
  const evaluate = async (results: readonly string[]) => {
    const { response } = await evaluateDmarc({
      headerFrom: [`author@${domain}`],
      spfDomains: spfDomains(spf, results),
      dkimDomains: dkimDomains(dkim, results).map((each) => ({ domain: each })),
      resolver: new Asking(names).resolveForDmarc,
      strict: true,
    })
    return response
  }
  const response = await evaluate(['pass'])
  const result = response === false ? 'none' : response.status.result
  if (response === false || result === 'none') return none
  const policyDomain = response.policyDomain ?? ''
  const known = {
    domain,
    policy: response.policy === undefined ? null : policyOf(response.policy, response),
    policyDomain,
    vouching: result === 'pass' ? passing : [],
  }
  if (result !== 'fail') return { ...known, result: result === 'pass' ? 'pass' : 'temperror' }
  const parents = parentsOf(response, domain, spf, dkim)
  if (parents.length > 0) return { ...known, result: 'pass', vouching: parents }
  // It failed without what the name servers kept back: would it have passed with it?
  const doubtful = [...spfDomains(spf, ['temperror']), ...dkimDomains(dkim, ['temperror'])]
  if (doubtful.length === 0) return { ...known, result: 'fail' }
  const hoped = await evaluate(['pass', 'temperror'])
  const isFail = hoped !== false && hoped.status.result === 'fail'
  return { ...known, result: isFail ? 'fail' : 'temperror' }
}

/**
 * `pct=0` of RFC 7489 is what `t=y` of RFC 9989 is now: the policy one step milder. Any other
 * part of the mail cannot be chosen without chance, and RFC 9989 knows `pct` no more.
 */
function policyOf(
  policy: string,
  { record, testMode }: { record?: { pct?: number }; testMode?: boolean },
) {
  if (record?.pct !== 0 || testMode === true) return policy
  return policy === 'reject' ? 'quarantine' : 'none'
}

/**
 * Domains above the author's that speak for it. RFC 7489 section 3.1 counts them; by RFC 9989
 * section 4.10.2 a domain with the only record is an organisation of its own. Many records are of
 * the time before, and who has the domain above can say what it wants below: they count, unless
 * `psd=n` says otherwise.
 */
function parentsOf(
  { record, alignment }: DmarcResponse,
  domain: string,
  spf: readonly SpfCheck[],
  dkim: readonly DkimCheck[],
): readonly string[] {
  if (record?.psd === 'n') return []
  return [
    ...(alignment?.spf.strict === false ? spfDomains(spf, ['pass']) : []),
    ...(alignment?.dkim.strict === false ? dkimDomains(dkim, ['pass']) : []),
  ].filter((each) => isParent(each, domain))
}

/** RFC 9989 section 5.3.3: the MAIL FROM identity, which is HELO for a mail without a sender. */
function spfDomains(spf: readonly SpfCheck[], results: readonly string[]): readonly string[] {
  const [first] = spf
  const isOnly = first?.identity === 'mailfrom' || spf.length === 1
  return first !== undefined && isOnly && results.includes(first.result) ? [first.domain] : []
}

/** Not those that leave a part of the body to whoever wants to write there. */
function dkimDomains(dkim: readonly DkimCheck[], results: readonly string[]): readonly string[] {
  return dkim
    .filter(({ result, uncovered }) => results.includes(result) && uncovered === 0)
    .map(({ domain }) => domain)
}

/** The domain itself, or one above it that is not the whole Internet. */
function isParent(above: string, domain: string): boolean {
  return above === domain || (above.includes('.') && domain.endsWith(`.${above}`))
}

/** The trusted sealer who saw `domain` pass, by the newest seals that are all trusted; or null. */
export function trustedSealer(
  arc: ArcCheck,
  sealers: ReadonlySet<string>,
  domain: string,
): string | null {
  for (const set of arc.sets.toReversed()) {
    const sealer = sealerOf(set)
    if (!sealers.has(sealer)) return null
    const field = set['arc-authentication-results'].original?.toString() ?? ''
    if (sawPass(field, domain)) return sealer
  }
  return null
}

/** Whether results (RFC 8601) say that DMARC, or a signature of `domain` itself, passed. */
function sawPass(field: string, domain: string): boolean {
  return unquoted(field)
    .split(';')
    .some((piece) => {
      const [head = '', ...properties] = piece.trim().toLowerCase().split(/\s+/)
      const has = (name: string, values: readonly string[]): boolean =>
        values.some((value) => properties.includes(`${name}=${value}`))
      if (head === 'dmarc=pass') return has('header.from', [domain])
      if (head !== 'dkim=pass') return false
      return has('header.d', [domain]) || has('header.i', [`@${domain}`])
    })
}

/** Without comments and quoted texts: what strangers wrote stands only there. */
function unquoted(field: string): string {
  let out = ''
  let depth = 0
  let quoted = false
  for (let at = 0; at < field.length; at++) {
    const char = field[at] ?? ''
    if (char === '\\') {
      at += 1
      if (!quoted && depth === 0) out += '?'
    } else if (quoted) quoted = char !== '"'
    else if (char === '(') depth += 1
    else if (char === ')' && depth > 0) depth -= 1
    else if (depth > 0) continue
    else if (char === '"') {
      quoted = true
      out += '?'
    } else out += char
  }
  return out
}
