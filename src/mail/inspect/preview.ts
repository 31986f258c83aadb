/** stub */
import type { Preview } from './contract.ts'
export async function previewOf(_raw: Buffer): Promise<Preview> { throw new Error('not yet') }
