/** The answers of the name servers in the form in which mailauth asks for them. */
import type { DnsAnswer, DnsQuestion, DnsType } from '../../../base/names.ts'
import type { Known } from '../look.ts'
import type { Resolve } from './library.ts'

const TYPES: ReadonlySet<string> = new Set<DnsType>(['A', 'AAAA', 'MX', 'TXT', 'PTR'])

/** What one check asks; it remembers what nobody could answer. */
export class Asking {
  readonly #names: Known
  /** Names that the name servers could not answer for. */
  readonly failed: string[] = []

  constructor(names: Known) {
    this.#names = names
  }

  ask(question: DnsQuestion): DnsAnswer | null {
    const answer = this.#names.ask(question)
    if (answer?.status === 'failed') this.failed.push(question.name)
    return answer
  }

  readonly resolve: Resolve = async (name, type) => {
    // Who asks for a CNAME only wants to know whether the name is there: `exists` says that.
    if (!TYPES.has(type)) throw coded('ENODATA', name)
    // Who writes such a name into a signature must not make it look like a failure of ours.
    if (!mayExist(name)) throw coded('ENOTFOUND', name)
    const answer = this.ask({ name, type: type as DnsType })
    return recordsOf(answer, name, type)
  }

  /**
   * For DMARC, which tells a name that does not exist from one without addresses (`np=`). An
   * answer does not say which it is, so a name exists when it has an address or takes mail: the
   * test of RFC 9091 section 2.6.
   */
  readonly resolveForDmarc: Resolve = async (name, type) => {
    if (type !== 'A') {
      if (type === 'CNAME') throw coded('ENOTFOUND', name)
      return this.resolve(name, type)
    }
    const answers = (['A', 'AAAA', 'MX'] as const).map((each) => this.ask({ name, type: each }))
    if (answers.some((answer) => answer?.status === 'found')) return []
    if (answers.some((answer) => answer?.status === 'failed')) throw coded('ESERVFAIL', name)
    throw coded(answers.includes(null) ? 'ESERVFAIL' : 'ENOTFOUND', name)
  }
}

/** RFC 1035 section 2.3.4. */
function mayExist(name: string): boolean {
  return (
    name.length <= 253 && name.split('.').every((label) => label.length > 0 && label.length <= 63)
  )
}

/** Sorted: name servers turn their answers around, and the verdict must not turn with them. */
function recordsOf(answer: DnsAnswer | null, name: string, type: string): unknown[] {
  // Not known yet: whatever comes of this is forgotten, so any end will do.
  if (answer === null || answer.status === 'failed') throw coded('ESERVFAIL', name)
  if (answer.status === 'absent') throw coded('ENOTFOUND', name)
  const records = answer.records.toSorted()
  if (type === 'TXT') return records.map((text) => [text])
  if (type !== 'MX') return records
  return records.map((text) => {
    const [priority = '0', exchange = ''] = text.split(' ')
    return { priority: Number(priority), exchange }
  })
}

function coded(code: string, name: string): Error {
  return Object.assign(new Error(`${code} ${name}`), { code })
}
