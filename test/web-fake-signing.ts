/** Keys that sign, of an Admin without a node. */
import type { Author, SigningAdmin, SigningKeyRow } from '../src/admin/contract.ts'
import { RefusalError } from '../src/base/errors.ts'
import { readSelector, recordName, recordText } from '../src/config/signing.ts'
import { FakeDetection } from './web-fake-detection.ts'

export class FakeSigning extends FakeDetection implements SigningAdmin {
  keys: SigningKeyRow[] = []
  /** What the DNS has not, as `check` says it. */
  missing: string | null = null

  signingKeys(domain?: string): readonly SigningKeyRow[] {
    return this.keys.filter((key) => domain === undefined || key.domain === domain)
  }

  async addSigningKey(
    author: Author,
    { domain, selector: raw, algorithm }: Parameters<SigningAdmin['addSigningKey']>[1],
  ): Promise<SigningKeyRow> {
    this.mustAct(author)
    const selector = readSelector(raw)
    const kind = algorithm === 'ed25519' ? algorithm : 'rsa'
    const key = { domain, selector, algorithm: kind, publicKey: 'MIIB', state: 'waiting' } as const
    const row = {
      ...key,
      recordName: recordName(key),
      record: recordText(key),
      isHere: true,
      trouble: null,
    }
    this.keys.push(row)
    return row
  }

  async checkSigningKey(author: Author, domain: string, selector: string): Promise<SigningKeyRow> {
    if (this.missing !== null)
      throw new RefusalError('conflict', 'selector', this.missing, 'Publish it.')
    return this.#turn(author, domain, selector, 'active')
  }

  retireSigningKey(author: Author, domain: string, selector: string): SigningKeyRow {
    return this.#turn(author, domain, selector, 'retired')
  }

  removeSigningKey(author: Author, domain: string, selector: string): void {
    const row = this.#turn(author, domain, selector, 'retired')
    this.keys = this.keys.filter((key) => key !== row)
  }

  #turn(
    author: Author,
    domain: string,
    selector: string,
    state: SigningKeyRow['state'],
  ): SigningKeyRow {
    this.mustAct(author)
    const place = this.keys.findIndex((key) => key.domain === domain && key.selector === selector)
    const before = this.keys[place]
    if (before === undefined)
      throw new RefusalError(
        'notFound',
        'selector',
        `There is no key ${selector}.`,
        'See the list.',
      )
    const row = { ...before, state }
    this.keys[place] = row
    return row
  }
}
