"""The pack for sharing: made from an audited synthetic set, scanned for the source, checked again by its receiver."""
