/** STARTTLS of a client: opportunistic, so that it hides the mail from listeners on the way. */
import { isIP } from 'node:net'
import type { Socket, SocketHandler } from 'bun'

/** TLS 1.2 as a number: Bun ignores the name. */
const TLS_1_2 = 0x0303

/**
 * Begins the handshake on `socket`; `handlers.handshake` tells how it ended. The handlers of the
 * clear socket go on to get copies of the ciphertext: the caller ignores them. No certificate
 * is checked: without DANE or MTA-STS a check protects against nothing that falling back to
 * clear text would not give away (RFC 7435).
 */
export function beginTls<Data>(
  socket: Socket<Data>,
  host: string,
  data: Data,
  handlers: SocketHandler<Data>,
): Socket<Data> {
  const tls = {
    rejectUnauthorized: false,
    minVersion: TLS_1_2,
    // RFC 6066 section 3: an address is no server name.
    ...(isIP(host) === 0 ? { serverName: host } : {}),
  }
  return socket.upgradeTLS<Data>({ data, tls, socket: handlers })[1]
}

/**
 * Whether the handshake agreed on a cipher. The flag that Bun gives its callback is no answer: it
 * is false for a certificate that nobody asked to be checked, when no server name was sent.
 */
export function isSecured(socket: Socket<unknown>): boolean {
  const cipher: { readonly name: string | null } = socket.getCipher()
  return cipher.name !== null
}

/** As in `Outcome.tls`: `TLSv1.3 TLS_AES_256_GCM_SHA384`. */
export function describeTls(socket: Socket<unknown>): string {
  return `${socket.getTLSVersion()} ${socket.getCipher().name}`
}
