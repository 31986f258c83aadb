/** Names as a dependency: the Resolver interface, its error classes, the system resolver. */
import { GatewayError } from './errors.ts'

/** The name or type does not exist: an answer, not a failure. */
export class NoSuchNameError extends GatewayError {
  override name = 'NoSuchNameError'
}

export type MxRecord = { readonly preference: number; readonly host: string }

export interface Resolver {
  /**
   * IPv4 and IPv6 addresses of `name`, without the trailing dot; IPv4 first.
   * @throws NoSuchNameError when there is none
   * @throws GatewayError with remedy `retry` on SERVFAIL or timeout
   */
  addresses(name: string): Promise<readonly string[]>
  /** Mail exchangers, unsorted; a null MX (RFC 7505) has the host ''. Errors as `addresses`. */
  mx(name: string): Promise<readonly MxRecord[]>
}
