/**
 * Adaptive greylisting: mail that would be delivered, and is suspicious all the same, is asked to
 * come again. Meanwhile lists learn of its sender, and most of those who send such mail never come
 * again. What is held or refused needs no more time. Pure.
 */
import { NetworkIndex } from '../../config/networks.ts'
import type { Settings } from '../../config/schema.ts'
import type { Envelope } from '../../message/envelope.ts'
import { type Insight, NO_INSIGHT, type Verdict } from '../../message/verdict.ts'
import type { Listing } from './listing.ts'

/** Score from which mail is suspicious (gateways.md section 5.2): below every other threshold. */
const GREYLIST_SCORE = 4
/** Recipients of one message that are asked about. */
const ASKED_MAX = 100

/** As store/greylist `askAs` takes it. */
export type GreyQuestion = {
  /** Any of these names is enough, when the client comes again from another address. */
  readonly names: readonly string[]
  readonly sender: string
  readonly recipient: string
}

export type GreyCase = {
  readonly settings: Settings
  readonly envelope: Envelope
  readonly clientName: string | null
  readonly insight?: Insight
  /** One a recipient, in their order. */
  readonly verdicts: readonly Verdict[]
  readonly listing: Listing | null
  /** The network of an address, as the store names it. */
  readonly networkOf: (ip: string) => string
  /** The domain that somebody registered. */
  readonly domainOf: (host: string) => string
}

/**
 * What is to be known of a message before it is taken; it waits as long as the longest answer says.
 * Empty: it need not wait.
 */
export function greylistAfter(given: GreyCase): readonly GreyQuestion[] {
  const { settings, envelope, verdicts, listing, insight = NO_INSIGHT } = given
  if (settings['greylist.mode'] !== 'adaptive' || listing?.kind === 'allow') return []
  if (envelope.outbound || isExempt(settings, envelope.clientIp)) return []
  const recipients = envelope.recipients.filter((_, place) => {
    const verdict = verdicts[place]
    return verdict?.kind === 'deliver' && verdict.score >= GREYLIST_SCORE
  })
  if (recipients.length === 0) return []
  // A domain that vouches for its mail is one sender, wherever it sends from: once it came again,
  // it is known.
  const [vouching] = insight.authenticated
  if (vouching !== undefined) return [{ names: [`dmarc:${vouching}`], sender: '', recipient: '' }]
  const names = namesOf(given, insight)
  return recipients
    .slice(0, ASKED_MAX)
    .map(({ address }) => ({ names, sender: envelope.sender, recipient: address }))
}

/** Its network; and what all addresses of a large sender have in common. */
function namesOf(
  { envelope, clientName, networkOf, domainOf }: GreyCase,
  { authentication }: Insight,
): readonly string[] {
  const passed = authentication.some(({ method, result }) => method === 'spf' && result === 'pass')
  const sender = envelope.sender.slice(envelope.sender.lastIndexOf('@') + 1).toLowerCase()
  return [
    networkOf(envelope.clientIp),
    ...(passed && sender !== '' ? [`spf:${domainOf(sender)}`] : []),
    ...(clientName === null ? [] : [`name:${domainOf(clientName)}`]),
  ]
}

const indexes = new WeakMap<readonly string[], NetworkIndex>()

function isExempt(settings: Settings, ip: string): boolean {
  const networks = settings['limits.exempt']
  const index = indexes.get(networks) ?? new NetworkIndex(networks)
  indexes.set(networks, index)
  return index.find(ip) !== null
}
