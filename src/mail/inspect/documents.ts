/** Not written yet. */
import type { Inspector } from './look.ts'

export const documents: Inspector = { name: 'documents', inspect: () => [] }
