/**
 * The node's own key and self-signed certificate, DIR/web.key and DIR/web.crt: for the web and
 * for STARTTLS. Made once; a pair that an operator puts there is used as it is.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, dateOf } from '../base/clock.ts'
import { messageOf, RefusalError } from '../base/errors.ts'
import { atomicWrite, readIfThere } from '../base/files.ts'
import { type Random, randomHex } from '../base/random.ts'

const VALID_MS = 10 * 365 * 86_400_000
const DAY_MS = 86_400_000

export type Certificate = {
  /** PEM. */
  readonly key: string
  /** PEM. */
  readonly cert: string
  /** `sha256//` and the base64 SHA-256 of the public key, as curl's --pinnedpubkey takes it. */
  readonly pin: string
}

/** False: `openCertificate` makes a pair, with a library that stays in memory. */
export function hasCertificate(directory: string): boolean {
  return existsSync(join(directory, 'web.key')) && existsSync(join(directory, 'web.crt'))
}

/** Reads the pair, or makes it (ECDSA P-256). @throws RefusalError when what is there is no pair */
export async function openCertificate(
  directory: string,
  names: readonly string[],
  deps: { readonly clock: Clock; readonly random: Random },
): Promise<Certificate> {
  const keyPath = join(directory, 'web.key')
  const certPath = join(directory, 'web.crt')
  const key = readIfThere(keyPath)
  const cert = readIfThere(certPath)
  if (key !== null && cert !== null) return readPair(directory, key, cert)
  const made = await makePair(names, deps)
  // The certificate last: a key alone is made anew, a certificate alone never is.
  atomicWrite(keyPath, made.key, 0o600)
  atomicWrite(certPath, made.cert, 0o644)
  return readPair(directory, made.key, made.cert)
}

function readPair(directory: string, key: string, cert: string): Certificate {
  try {
    const certificate = new X509Certificate(cert)
    const spki = certificate.publicKey.export({ type: 'spki', format: 'der' })
    return { key, cert, pin: `sha256//${createHash('sha256').update(spki).digest('base64')}` }
  } catch (error) {
    throw new RefusalError(
      'invalid',
      'data',
      `The certificate ${join(directory, 'web.crt')} cannot be read: ${messageOf(error)}.`,
      'Put a PEM certificate there, or remove web.crt and web.key to get new ones.',
    )
  }
}

async function makePair(
  names: readonly string[],
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<{ readonly key: string; readonly cert: string }> {
  // Only a first start pays for these two.
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: `01${randomHex(random, 15)}`,
    name: [{ CN: ['postern'] }],
    notBefore: dateOf(clock.wallMs() - DAY_MS),
    notAfter: dateOf(clock.wallMs() + VALID_MS),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.SubjectAlternativeNameExtension(names.map(alternative)),
    ],
  })
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey))
  return { key: pem('PRIVATE KEY', pkcs8), cert: `${certificate.toString('pem')}\n` }
}

function alternative(name: string): { readonly type: 'ip' | 'dns'; readonly value: string } {
  const address = /^[\d.]+$/.test(name) || name.includes(':')
  return { type: address ? 'ip' : 'dns', value: name }
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
