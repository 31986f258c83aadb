/**
 * mailauth (MIT), in the words that we need of it. SPF, DKIM, ARC and DMARC with the tree walk of
 * RFC 9989 pass the public suites of their fields in its strict mode. Loaded with the first mail
 * that needs it: it is 30 MB of memory for a gateway that may not look at senders at all.
 */

/** As node:dns would answer; rejects with an error that has one of its codes. */
export type Resolve = (name: string, type: string) => Promise<unknown[]>

export type SpfResult = {
  readonly domain: string
  readonly status: { readonly result: string; readonly comment?: string }
  /** The record that was looked at. */
  readonly rr?: string
}

export type DkimStatus = {
  readonly result: string
  readonly comment?: string
  readonly policy?: Readonly<Record<string, string>>
  /** Octets of the body that the signature does not cover (`l=`). */
  readonly underSized?: number
}

export type DkimResult = {
  readonly signingDomain?: string
  readonly selector?: string
  readonly signature?: string
  readonly algo?: string
  readonly canonBodyLengthLimited?: boolean
  readonly status: DkimStatus
}

type TagList = { readonly parsed?: Readonly<Record<string, { readonly value?: unknown }>> }

export type ArcSet = {
  readonly i: number
  readonly 'arc-seal': TagList
  readonly 'arc-authentication-results': {
    readonly original?: { toString(): string }
  }
}

type ArcData = {
  readonly chain: readonly ArcSet[] | false
  readonly lastEntry?: { readonly messageSignature?: { readonly status: DkimStatus } }
}

export type ArcResult = {
  readonly i: number | false
  readonly status: { readonly result: string; readonly comment?: string }
}

export type DmarcResponse = {
  /** Where the record was found. */
  readonly policyDomain?: string
  readonly policy?: string
  /** `t=y`: the policy is one step milder already. */
  readonly testMode?: boolean
  readonly error?: string
  readonly status: { readonly result: string }
  readonly record?: { readonly pct?: number; readonly psd?: string }
  /** Whether only the author's domain itself may vouch. */
  readonly alignment?: {
    readonly spf: { readonly strict: boolean }
    readonly dkim: { readonly strict: boolean }
  }
}

export type Mailauth = {
  spf(options: {
    readonly sender: string
    readonly ip: string
    readonly helo: string
    readonly mta: string
    readonly resolver: Resolve
    readonly strict: true
  }): Promise<SpfResult>
  dkimVerify(
    message: Buffer,
    options: {
      readonly resolver: Resolve
      readonly strict: true
      readonly minBitLength: number
      readonly curTime: Date
      readonly sender: string
    },
  ): Promise<{ readonly results: readonly DkimResult[]; readonly arc: ArcData }>
  arc(
    data: ArcData,
    options: { readonly resolver: Resolve; readonly strict: true; readonly minBitLength: number },
  ): Promise<ArcResult>
  evaluateDmarc(options: {
    readonly headerFrom: readonly string[]
    readonly spfDomains: readonly string[]
    readonly dkimDomains: readonly { readonly domain: string }[]
    readonly resolver: Resolve
    readonly strict: true
  }): Promise<{ readonly response: DmarcResponse | false }>
}

let loading: Promise<Mailauth> | null = null

export function mailauth(): Promise<Mailauth> {
  loading ??= load()
  return loading
}

/** Its parts alone: the whole of it brings an HTTP client and a reader of XML. */
async function load(): Promise<Mailauth> {
  const [spf, dkim, arc, dmarc] = await Promise.all([
    import('mailauth/lib/spf/index.js'),
    import('mailauth/lib/dkim/verify.js'),
    import('mailauth/lib/arc/index.js'),
    import('mailauth/lib/dmarc/index.js'),
  ])
  const parts: unknown = { ...spf, ...dkim, ...arc, ...dmarc }
  return parts as Mailauth
}
